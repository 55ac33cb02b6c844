//! Which certificate authorities TLS trusts.
//!
//! Owns Amazon's roots, which are part of the binary, and where AWS's endpoints
//! chain to them. It must not read the environment: what an operator wants
//! trusted comes from [`config`](crate::config).
//!
//! Reading the machine's roots takes longer than all else of a cold start, and
//! each of its hundred-odd authorities could vouch for AWS.

use std::path::Path;

use aws_smithy_http_client::tls::{TlsContext, TrustStore};
use aws_smithy_types::base64;
use rustls::RootCertStore;
use rustls_native_certs::{CertificateResult, load_certs_from_paths};

/// The roots of Amazon Trust Services, which recommends to trust all five
/// ("Trust store and pinning recommendations",
/// <https://www.amazontrust.com/repository>).
const AMAZON: [&str; 5] = [
    include_str!("trust/amazon-root-ca-1.pem"),
    include_str!("trust/amazon-root-ca-2.pem"),
    include_str!("trust/amazon-root-ca-3.pem"),
    include_str!("trust/amazon-root-ca-4.pem"),
    include_str!("trust/starfield-services-root-ca-g2.pem"),
];

/// The first part of the names of the Regions of the partition `aws` (the
/// SDK's `partitions.json`, `regionRegex`).
const AREAS: [&str; 9] = ["us", "eu", "ap", "sa", "ca", "me", "af", "il", "mx"];

/// The roots that TLS trusts, and no others.
#[derive(Debug, Eq, PartialEq)]
pub enum Roots {
    /// Amazon Trust Services' five.
    Amazon,
    /// The machine's.
    Machine,
    /// Certificates that a variable names, as PEM.
    Named(String),
}

impl Roots {
    /// Returns what the SDK's HTTP client wants to know.
    pub fn tls_context(&self) -> TlsContext {
        let store = match self {
            Self::Amazon => AMAZON
                .into_iter()
                .fold(TrustStore::empty(), TrustStore::with_pem_certificate),
            Self::Machine => TrustStore::default(),
            Self::Named(pem) => TrustStore::empty().with_pem_certificate(pem.as_str()),
        };
        TlsContext::builder()
            .with_trust_store(store)
            .build()
            .expect("the builder of 1.5 checks nothing")
    }
}

/// Returns whether AWS's own endpoints in a Region are known to chain to
/// Amazon's roots.
///
/// Known for the partitions `aws` and `aws-us-gov` ("How to Prepare for AWS's
/// Move to Its Own Certificate Authority", AWS Security Blog). Not for the
/// others: the isolated partitions have authorities of their own (botocore
/// issue 2611), the European Sovereign Cloud is getting some (Amazon Trust
/// Services' repository), and about China nothing was found.
pub fn is_amazons(region: &str) -> bool {
    match region.split('-').collect::<Vec<_>>()[..] {
        [area, _, number] => AREAS.contains(&area) && is_number(number),
        ["us", "gov", _, number] => is_number(number),
        _ => false,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Reads the certificates of a PEM file, as PEM.
///
/// # Errors
///
/// The reason, if there is none that can be a root.
pub fn of_file(file: &str) -> Result<String, String> {
    roots(&load_certs_from_paths(Some(Path::new(file)), None))
}

/// Reads the certificates of all PEM files in some directories, as PEM.
///
/// # Errors
///
/// The reason, if there is none that can be a root.
pub fn of_directories(directories: &str) -> Result<String, String> {
    let mut all = CertificateResult::default();
    for directory in std::env::split_paths(directories) {
        let found = load_certs_from_paths(None, Some(&directory));
        all.certs.extend(found.certs);
        all.errors.extend(found.errors);
    }
    roots(&all)
}

/// The SDK panics at a certificate that can be no root; bundles may have some.
fn roots(found: &CertificateResult) -> Result<String, String> {
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
        return Err(error.unwrap_or_else(|| "there is none".to_owned()));
    }
    Ok(pem)
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

    const TRUST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/trust");

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
    }

    /// Nothing but its debug form tells what a context trusts.
    #[test]
    fn only_the_machine_has_the_machines_roots() {
        let count = |roots: Roots| {
            let context = format!("{:?}", roots.tls_context());
            (
                context.contains("enable_native_roots: true"),
                context.matches("CertificatePEM").count(),
            )
        };
        assert_eq!(count(Roots::Amazon), (false, 5));
        assert_eq!(count(Roots::Machine), (true, 0));
        assert_eq!(count(Roots::Named(AMAZON.concat())), (false, 1));
    }

    #[test]
    fn only_regions_of_aws_and_govcloud_are_known_to_be_amazons() {
        for region in [
            "us-east-1",
            "eu-central-1",
            "ap-southeast-7",
            "mx-central-1",
            "us-gov-west-1",
        ] {
            assert!(is_amazons(region), "{region}");
        }
        for region in [
            "cn-north-1",
            "eusc-de-east-1",
            "us-iso-east-1",
            "us-isob-east-1",
            "eu-isoe-west-1",
            "us-isof-south-1",
            "xx-new-1",
            "us-east-one",
            "us-east-",
            "us-east",
            "local",
            "",
        ] {
            assert!(!is_amazons(region), "{region}");
        }
    }

    #[test]
    fn named_certificates_are_all_that_can_be_roots() {
        let file = format!("{TRUST}/amazon-root-ca-1.pem");
        let roots = of_file(&file).expect("a root");
        assert_eq!(certificates(&roots), certificates(AMAZON[0]));
        for directories in [TRUST, &format!("{TRUST}:/nowhere"), &format!(":{TRUST}")] {
            let roots = of_directories(directories).expect("roots");
            assert_eq!(certificates(&roots).len(), 5, "{directories}");
        }
    }

    #[test]
    fn without_any_root_the_reason_is_told() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let events = concat!(env!("CARGO_MANIFEST_DIR"), "/events");
        for (found, reason) in [
            (of_file("/nowhere.pem"), "No such file"),
            (of_file(manifest), "there is none"),
            (of_directories("/nowhere"), "No such file"),
            (of_directories(events), "there is none"),
        ] {
            let error = found.expect_err("no root");
            assert!(error.contains(reason), "{error}");
        }
        let no_certificate = CertificateDer::from(b"no certificate".to_vec());
        let mut unusable = CertificateResult::default();
        unusable.certs.push(no_certificate);
        assert_eq!(roots(&unusable), Err("there is none".to_owned()));
    }
}
