#!/usr/bin/env python3
"""Tests which root certificates the release bootstrap trusts. It calls a SiteWise
whose certificate was issued by one of two authorities of this test."""

import datetime
import http.server
import ipaddress
import json
import pathlib
import shutil
import ssl
import tempfile
import threading

import emulator

EVENT = json.dumps(
    {
        "projectId": "5791e316-d232-4366-84f0-e1df00172b1b",
        "assetIds": ["dfa70030-4b94-462b-884f-c110a65c660b"],
    }
)


class Authority:
    """A certificate authority, and a server certificate for 127.0.0.1 from it."""

    def __init__(self, folder, name):
        # Importable only when the requirements are installed.
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        def certificate(subject, key, extension):
            def named(text):
                return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

            return (
                x509.CertificateBuilder()
                .subject_name(named(subject))
                .issuer_name(named(name))
                .public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - datetime.timedelta(days=1))
                .not_valid_after(now + datetime.timedelta(days=1))
                .add_extension(extension, critical=False)
                .sign(own_key, hashes.SHA256())
                .public_bytes(serialization.Encoding.PEM)
            )

        now = datetime.datetime.now(datetime.timezone.utc)
        own_key = ec.generate_private_key(ec.SECP256R1())
        server_key = ec.generate_private_key(ec.SECP256R1())
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        self.root = folder / f"{name}.pem"
        self.root.write_bytes(
            certificate(name, own_key, x509.BasicConstraints(ca=True, path_length=None))
        )
        # A certificate and its key, which a server wants in one file.
        self.server = folder / f"{name}-server.pem.txt"
        self.server.write_bytes(
            certificate("server", server_key, x509.SubjectAlternativeName([address]))
            + server_key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


class SiteWise(http.server.BaseHTTPRequestHandler):
    """Disassociates every asset."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.server.calls += 1
        answer = b'{"errors":[]}'
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, identity):
        super().__init__(("127.0.0.1", 0), SiteWise)
        self.calls = 0
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(identity)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def finish_request(self, request, client_address):
        with self._tls.wrap_socket(request, server_side=True) as encrypted:
            super().finish_request(encrypted, client_address)

    def handle_error(self, *_):
        """Ignores clients that refuse the certificate or are gone."""


class TlsRoots(emulator.EmulatedFunction):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.ours = Authority(cls.folder, "ours")
        cls.others = Authority(cls.folder, "others")
        cls.server = Server(cls.ours.server)
        cls.addClassCleanup(cls.server.server_close)
        cls.addClassCleanup(cls.server.shutdown)

    def endpoint(self):
        return "https://{}:{}".format(*self.server.server_address)

    def status(self, **variables):
        """Sends one asset; returns the report's status and the number of calls
        that the server received."""
        self.server.calls = 0
        self.start_function(**{name: str(value) for name, value in variables.items()})
        report = self.invoke(EVENT)
        codes = [failure["code"] for failure in report.get("failures", [])]
        self.assertEqual(codes, [] if self.server.calls else ["ConnectionFailed"])
        return report["status"], self.server.calls

    def test_an_authority_that_a_variable_names_is_trusted(self):
        directory = self.folder / "trusted"
        directory.mkdir()
        shutil.copy(self.ours.root, directory)
        empty = self.folder / "empty"
        empty.mkdir()
        both = self.folder / "both.pem"
        both.write_bytes(self.others.root.read_bytes() + self.ours.root.read_bytes())
        for variables in [
            {"SSL_CERT_FILE": self.ours.root},
            {"SSL_CERT_FILE": both},
            {"SSL_CERT_DIR": directory},
            {"SSL_CERT_DIR": f"/nowhere:{directory}"},
            {"SSL_CERT_FILE": self.others.root, "SSL_CERT_DIR": directory},
            {"SSL_CERT_FILE": self.ours.root, "SSL_CERT_DIR": empty},
            {"AWS_CA_BUNDLE": self.ours.root},
            {"AWS_CA_BUNDLE": self.ours.root, "SSL_CERT_FILE": self.others.root},
        ]:
            with self.subTest(variables):
                status = self.status(AWS_ENDPOINT_URL=self.endpoint(), **variables)
                self.assertEqual(status, ("succeeded", 1))

    def test_no_other_authority_is_trusted(self):
        # The choice of roots does not look into a configuration file.
        config = self.folder / "config"
        config.write_text(f"[default]\nendpoint_url = {self.endpoint()}\n")
        for variables in [
            {"AWS_ENDPOINT_URL": self.endpoint()},
            {"AWS_CONFIG_FILE": config},
            {"AWS_ENDPOINT_URL": self.endpoint(), "AWS_REGION": "cn-north-1"},
            {"AWS_ENDPOINT_URL": self.endpoint(), "SSL_CERT_FILE": self.others.root},
            {"AWS_ENDPOINT_URL": self.endpoint(), "AWS_CA_BUNDLE": self.others.root},
            {
                "AWS_ENDPOINT_URL": self.endpoint(),
                "AWS_CA_BUNDLE": self.others.root,
                "SSL_CERT_FILE": self.ours.root,
            },
        ]:
            with self.subTest(variables):
                self.assertEqual(self.status(**variables), ("failed", 0))


if __name__ == "__main__":
    emulator.install_requirements()
    emulator.main()
