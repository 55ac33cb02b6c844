//! A TLS terminator: `bench-tls LISTEN UPSTREAM CA_FILE`.
//!
//! Passes what comes over TLS at `LISTEN` on to `UPSTREAM` in the clear, and
//! writes the certificate of the authority that vouches for it to `CA_FILE`.

use std::error::Error;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, ca_file] = arguments.as_slice() else {
        return Err("expected LISTEN UPSTREAM CA_FILE".into());
    };
    let (config, authority) = identity()?;
    let listener = TcpListener::bind(listen).await?;
    std::fs::write(ca_file, authority)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    loop {
        let (outside, _) = listener.accept().await?;
        let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
        // A connection that breaks concerns no other.
        tokio::spawn(async move { pass_on(outside, &acceptor, &upstream).await.ok() });
    }
}

async fn pass_on(
    outside: TcpStream,
    acceptor: &TlsAcceptor,
    upstream: &str,
) -> std::io::Result<()> {
    outside.set_nodelay(true)?;
    let mut outside = acceptor.accept(outside).await?;
    let mut inside = TcpStream::connect(upstream).await?;
    inside.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut outside, &mut inside).await?;
    Ok(())
}

/// Makes an authority and a server certificate of it (ECDSA P-256, so that the
/// server's part of a handshake is short); returns the authority's as PEM.
fn identity() -> Result<(ServerConfig, String), Box<dyn Error>> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    authority
        .distinguished_name
        .push(DnType::CommonName, "Benchmark authority");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let names = ["localhost", "monitor.localhost", "127.0.0.1"].map(String::from);
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok((config, authority.pem()))
}
