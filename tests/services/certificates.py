"""A private CA, the servers' certificate, and the two that a client must refuse."""

import pathlib
import subprocess

# Names of the S3 servers: a path style and a virtual-host style one.
SERVER_NAMES = "DNS:localhost,DNS:s3.localhost,DNS:*.s3.localhost,IP:127.0.0.1"
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
DAYS = "30"


def openssl(*words):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, stdin=subprocess.DEVNULL)


class Certificates:
    """Files below a directory; *.pem of a server holds its key too, as HAProxy wants it."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.ca = self.authority("ca")
        self.other_ca = self.authority("other-ca")
        self.server = self.signed("server", SERVER_NAMES)
        self.elsewhere = self.signed("elsewhere", "DNS:elsewhere.example")

    def authority(self, name):
        path = self.directory / f"{name}.pem"
        openssl("req", "-x509", *KEY, "-days", DAYS, "-subj", f"/CN=pgcairn test {name}",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", self.directory / f"{name}.key", "-out", path)
        path.chmod(0o644)
        return path

    def signed(self, name, names):
        request, key = self.directory / f"{name}.csr", self.directory / f"{name}.key"
        certificate, extension = self.directory / f"{name}.crt", self.directory / f"{name}.ext"
        openssl("req", "-new", *KEY, "-subj", "/CN=test", "-keyout", key, "-out", request)
        # As strict clients (Python 3.13) want it.
        extension.write_text(f"subjectAltName={names}\nbasicConstraints=CA:FALSE\nkeyUsage=digitalSignature\n"
                             "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n", encoding="ascii")
        openssl("x509", "-req", "-days", DAYS, "-in", request, "-CA", self.ca, "-CAkey",
                self.directory / "ca.key", "-CAcreateserial", "-out", certificate, "-extfile", extension)
        path = self.directory / f"{name}.pem"
        path.write_bytes(certificate.read_bytes() + key.read_bytes())
        path.chmod(0o600)
        return path
