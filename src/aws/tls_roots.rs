//! The root certificates that TLS trusts.
//!
//! Owns Amazon's roots, which are part of the binary: reading the system's takes
//! longer than the rest of a cold start, and any of its hundred-odd authorities
//! could vouch for AWS. [`config`](crate::config) decides between the two.

use std::path::Path;

use aws_smithy_http_client::tls::{TlsContext, TrustStore};
use aws_smithy_types::base64;
use rustls::RootCertStore;
use rustls_native_certs::{CertificateResult, load_certs_from_paths, load_native_certs};

/// The roots of Amazon Trust Services, which recommends to trust all five
/// ("Trust store and pinning recommendations",
/// <https://www.amazontrust.com/repository>).
const AMAZON: [&str; 5] = [
    include_str!("tls_roots/amazon-root-ca-1.pem"),
    include_str!("tls_roots/amazon-root-ca-2.pem"),
    include_str!("tls_roots/amazon-root-ca-3.pem"),
    include_str!("tls_roots/amazon-root-ca-4.pem"),
    include_str!("tls_roots/starfield-services-root-ca-g2.pem"),
];

/// The root certificates that TLS trusts, and no others, as PEM.
#[derive(Debug, Eq, PartialEq)]
pub struct TlsRoots(String);

impl TlsRoots {
    /// Returns the five of Amazon Trust Services.
    pub fn amazon() -> Self {
        Self(AMAZON.concat())
    }

    /// Reads a PEM file.
    ///
    /// # Errors
    ///
    /// The reason why it has no usable root.
    pub fn from_file(file: &str) -> Result<Self, String> {
        usable(&load_certs_from_paths(Some(Path::new(file)), None))
    }

    /// Reads the system's roots: those in `SSL_CERT_FILE` and `SSL_CERT_DIR` if
    /// the environment has one of them.
    ///
    /// # Errors
    ///
    /// The reason why there is no usable root.
    pub fn from_system() -> Result<Self, String> {
        usable(&load_native_certs())
    }

    /// Returns the configuration of the SDK's HTTP client.
    pub fn tls_context(&self) -> TlsContext {
        TlsContext::builder()
            .with_trust_store(TrustStore::empty().with_pem_certificate(self.0.as_str()))
            .build()
            .expect("the builder of 1.5 checks nothing")
    }
}

/// Returns whether AWS's endpoints in a Region chain to Amazon's roots ("How to
/// Prepare for AWS's Move to Its Own Certificate Authority", AWS Security Blog).
///
/// Partitions of which this is not known: the isolated ones have their own
/// authorities (botocore issue 2611), the European Sovereign Cloud will have some
/// (Amazon Trust Services' repository), and nothing was found about China.
pub fn have_amazon_roots(region: &str) -> bool {
    !region.starts_with("cn-") && !region.starts_with("eusc-") && !region.contains("-iso")
}

/// Drops certificates that cannot be roots: bundles may have some, and the SDK
/// panics at them.
fn usable(found: &CertificateResult) -> Result<TlsRoots, String> {
    let pem: String = found
        .certs
        .iter()
        .filter(|certificate| RootCertStore::empty().add((*certificate).clone()).is_ok())
        .map(|certificate| {
            let base64 = base64::encode(certificate);
            format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
        })
        .collect();
    if pem.is_empty() {
        let error = found.errors.first().map(ToString::to_string);
        return Err(error.unwrap_or_else(|| "none found".to_owned()));
    }
    Ok(TlsRoots(pem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    use sha2::{Digest as _, Sha256};

    /// "SHA-256 Hash of Subject Public Key Information", as Amazon Trust
    /// Services publishes it: <https://www.amazontrust.com/repository>.
    const PUBLISHED: [&str; 5] = [
        "fbe3018031f9586bcbf41727e417b7d1c45c2f47f93be372a17b96b50757d5a2",
        "7f4296fc5b6a4e3b35d3c369623e364ab1af381d8fa7121533c9d6c633ea2461",
        "36abc32656acfc645c61b71613c4bf21c787f5cabbee48348d58597803d7abc9",
        "f7ecded5c66047d28ed6466b543c40e0743abe81d109254dcf845d4c2c7853c5",
        "2b071c59a0a0ae76b0eadb2bad23bad4580b69c3601b630c2eaf0613afa83f92",
    ];

    fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<_, _>>()
            .expect("PEM")
    }

    /// Hashes the key of a certificate's only, with the DER header that the
    /// anchor leaves out.
    fn key_hash(pem: &str) -> String {
        let mut store = RootCertStore::empty();
        let [certificate] = &certificates(pem)[..] else {
            panic!("not one certificate: {pem}");
        };
        store.add(certificate.clone()).expect("a root");
        let key = &store.roots[0].subject_public_key_info;
        let length = u16::try_from(key.len()).expect("short").to_be_bytes();
        let header = match length {
            [0, low @ ..0x80] => vec![0x30, low],
            [high, low] => vec![0x30, 0x82, high, low],
        };
        let hash = Sha256::new().chain_update(header).chain_update(key);
        let hash = hash.finalize();
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_embedded_roots_are_the_five_that_amazon_publishes() {
        assert_eq!(AMAZON.map(key_hash), PUBLISHED);
        assert_eq!(certificates(&TlsRoots::amazon().0).len(), AMAZON.len());
    }

    /// Only its debug form shows what a context trusts.
    #[test]
    fn nothing_is_trusted_but_the_roots() {
        let context = format!("{:?}", TlsRoots::amazon().tls_context());
        assert!(context.contains("enable_native_roots: false"), "{context}");
        assert_eq!(context.matches("CertificatePEM").count(), 1);
    }

    #[test]
    fn all_regions_but_those_of_other_partitions_have_amazons_roots() {
        for region in [
            "us-east-1",
            "eu-central-1",
            "ap-southeast-7",
            "mx-central-1",
            "us-gov-west-1",
        ] {
            assert!(have_amazon_roots(region), "{region}");
        }
        for region in [
            "cn-north-1",
            "eusc-de-east-1",
            "us-iso-east-1",
            "us-isob-east-1",
            "eu-isoe-west-1",
            "us-isof-south-1",
        ] {
            assert!(!have_amazon_roots(region), "{region}");
        }
    }

    #[test]
    fn certificates_that_cannot_be_roots_are_dropped() {
        let mut found = CertificateResult::default();
        found.certs.push(CertificateDer::from(b"no root".to_vec()));
        assert_eq!(usable(&found), Err("none found".to_owned()));

        found.certs.extend(certificates(AMAZON[0]));
        let TlsRoots(pem) = usable(&found).expect("a root");
        assert_eq!(certificates(&pem), certificates(AMAZON[0]));
    }
}
