"""As much of an S3 client as tests need to look behind the program's back: signed requests, one at a time.

Independent of the program's own signer, on the standard library alone.
"""

import datetime
import hashlib
import hmac
import http.client
import ssl
import urllib.parse
import xml.etree.ElementTree

TIMEOUT_SECONDS = 60


class S3Error(Exception):
    """An answer that was not wanted: status, code, text."""

    def __init__(self, status, text):
        super().__init__(f"{status}: {text[:500]}")
        self.status = status


def quote(text, safe="/"):
    return urllib.parse.quote(text, safe=f"{safe}-_.~")


class S3Client:
    """One endpoint and key pair, path style."""

    def __init__(self, endpoint, key, secret, region="us-east-1", ca=None):
        self.url = urllib.parse.urlsplit(endpoint)
        self.key, self.secret, self.region = key, secret, region
        self.context = ssl.create_default_context(cafile=str(ca)) if ca else None

    def connect(self):
        if self.url.scheme == "https":
            return http.client.HTTPSConnection(self.url.hostname, self.url.port, timeout=TIMEOUT_SECONDS,
                                               context=self.context)
        return http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=TIMEOUT_SECONDS)

    def signature(self, method, path, query, headers, day, scope):
        """https://docs.aws.amazon.com/general/latest/gr/sigv4-create-canonical-request.html"""
        names = ";".join(sorted(headers))
        canonical = "\n".join([method, path, query,
                               *(f"{name}:{headers[name]}" for name in sorted(headers)), "", names,
                               headers["x-amz-content-sha256"]])
        text = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], scope,
                          hashlib.sha256(canonical.encode()).hexdigest()])
        key = f"AWS4{self.secret}".encode()
        for part in (day, self.region, "s3", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return names, hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

    def request(self, method, bucket, name="", query=None, headers=None, body=b"", want=(200, 204)):
        """Status, headers and body of the answer; S3Error for a status that is not among the wanted."""
        now = datetime.datetime.now(datetime.timezone.utc)
        day = now.strftime("%Y%m%d")
        path = quote(f"/{bucket}/{name}" if name else f"/{bucket}")
        text = "&".join(f"{quote(key, '')}={quote(value, '')}" for key, value in sorted((query or {}).items()))
        signed = {"host": self.url.netloc, "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ"),
                  **{key.lower(): value for key, value in (headers or {}).items()}}
        if "x-amz-content-sha256" not in signed:
            signed["x-amz-content-sha256"] = hashlib.sha256(body).hexdigest()
        scope = f"{day}/{self.region}/s3/aws4_request"
        names, signature = self.signature(method, path, text, signed, day, scope)
        authorization = (f"AWS4-HMAC-SHA256 Credential={self.key}/{scope}, SignedHeaders={names}, "
                         f"Signature={signature}")
        connection = self.connect()
        try:
            # Bodies go out at once, not in http.client's pieces of 8 kB.
            connection.blocksize = max(len(body), 8192)
            connection.request(method, f"{path}?{text}" if text else path, body=body,
                               headers={**signed, "Authorization": authorization})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if want and answer.status not in want:
            raise S3Error(answer.status, content.decode("utf-8", "replace"))
        return answer.status, answer.headers, content

    # -- what tests do all the time

    def make_bucket(self, bucket, lock=False):
        self.request("PUT", bucket, headers={"x-amz-bucket-object-lock-enabled": "true"} if lock else None)

    def put(self, bucket, name, body, headers=None):
        return self.request("PUT", bucket, name, headers=headers, body=body)

    def get(self, bucket, name):
        return self.request("GET", bucket, name)[2]

    def delete(self, bucket, name):
        self.request("DELETE", bucket, name)

    def list(self, bucket, prefix=""):
        """Sizes by name, of everything below the prefix."""
        found, token = {}, None
        while True:
            query = {"list-type": "2", "prefix": prefix, **({"continuation-token": token} if token else {})}
            root = xml.etree.ElementTree.fromstring(self.request("GET", bucket, query=query)[2])
            for element in root.iter():
                element.tag = element.tag.rsplit("}", 1)[-1]
            for item in root.iter("Contents"):
                found[item.findtext("Key")] = int(item.findtext("Size"))
            token = root.findtext("NextContinuationToken")
            if not token:
                return found
