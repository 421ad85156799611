"""The services that hand out credentials on the clouds, as far as a client sees them, on the loopback interface.

They cannot run here for real: a token service that takes a web identity, a container service that wants an
authorization token, and version 2 of the instance metadata service. Written after their references, they refuse what
the real ones refuse: a missing or wrong token, an unknown role, a metadata request without a session token.
"""

import datetime
import http.server
import json
import secrets
import threading
import urllib.parse

ROLE = "arn:aws:iam::123456789012:role/pgcairn"
INSTANCE_ROLE = "pgcairn-backup"

STS_ANSWER = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <SubjectFromWebIdentityToken>someone</SubjectFromWebIdentityToken>
    <Credentials>
      <SessionToken>{token}</SessionToken>
      <SecretAccessKey>{secret}</SecretAccessKey>
      <Expiration>{expires}</Expiration>
      <AccessKeyId>{key}</AccessKeyId>
    </Credentials>
  </AssumeRoleWithWebIdentityResult>
  <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>
</AssumeRoleWithWebIdentityResponse>"""

STS_ERROR = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>1</RequestId>
</ErrorResponse>"""


class Services:
    """All three on one port. What they hand out are the store's own key and secret."""

    def __init__(self, key, secret):
        self.key, self.secret = key, secret
        self.identity_token = "eyJhbGciOi.J+/SUzI1.NiIs=="
        self.container_token = "Basic " + secrets.token_hex(8)
        self.metadata_tokens = set()
        self.failures = 0  # so many requests get a 503 first
        self.lifetime_seconds = 3600
        self.log = []
        services = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """One request."""

            def log_message(self, *_arguments):  # pylint: disable=arguments-differ
                """Not to the tests' output."""

            def answer(self, status, text="", kind="text/plain"):
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def handle_one(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                services.log.append(f"{self.command} {self.path}")
                if services.failures > 0:
                    services.failures -= 1
                    return self.answer(503, "busy")
                return self.answer(*services.reply(self.command, self.path, self.headers, body))

            do_GET = do_PUT = do_POST = handle_one

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def expires(self):
        now = datetime.datetime.now(datetime.timezone.utc)
        return (now + datetime.timedelta(seconds=self.lifetime_seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def as_json(self, **more):
        return json.dumps({"AccessKeyId": self.key, "SecretAccessKey": self.secret, "Token": "session-token",
                           "Expiration": self.expires(), **more})

    def reply(self, method, path, headers, body):
        """Status, text and kind."""
        if method == "POST" and path == "/":
            return self.sts(headers, body)
        if method == "GET" and path == "/container":
            return self.container(headers)
        if path.startswith("/latest/"):
            return self.instance(method, path, headers)
        return 404, "not found", "text/plain"

    def sts(self, headers, body):
        form = dict(urllib.parse.parse_qsl(body, strict_parsing=True))
        if headers.get("Authorization"):
            return 403, STS_ERROR.format(code="AccessDenied", message="it must not be signed"), "text/xml"
        if form.get("Action") != "AssumeRoleWithWebIdentity" or form.get("Version") != "2011-06-15":
            return 400, STS_ERROR.format(code="InvalidAction", message="no such action"), "text/xml"
        if form.get("RoleArn") != ROLE or not form.get("RoleSessionName"):
            return 403, STS_ERROR.format(code="AccessDenied", message="not this role"), "text/xml"
        if form.get("WebIdentityToken") != self.identity_token:
            return 400, STS_ERROR.format(code="InvalidIdentityToken", message="not issued here"), "text/xml"
        return 200, STS_ANSWER.format(token="session-token", secret=self.secret, expires=self.expires(),
                                      key=self.key), "text/xml"

    def container(self, headers):
        if headers.get("Authorization") != self.container_token:
            return 401, '{"code":"AccessDenied","message":"no"}', "application/json"
        return 200, self.as_json(), "application/json"

    def instance(self, method, path, headers):
        if path == "/latest/api/token":
            if method != "PUT" or not headers.get("X-aws-ec2-metadata-token-ttl-seconds", "").isdigit():
                return 400, "", "text/plain"
            token = secrets.token_urlsafe(32) + "=="
            self.metadata_tokens.add(token)
            return 200, token, "text/plain"
        if headers.get("X-aws-ec2-metadata-token") not in self.metadata_tokens:
            return 401, "Unauthorized", "text/plain"
        if path == "/latest/meta-data/iam/security-credentials/":
            return 200, INSTANCE_ROLE, "text/plain"
        if path == f"/latest/meta-data/iam/security-credentials/{INSTANCE_ROLE}":
            return 200, self.as_json(Code="Success", Type="AWS-HMAC", LastUpdated=self.expires()), "text/plain"
        return 404, "", "text/plain"
