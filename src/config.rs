//! The function's configuration: every environment variable, read once.
//!
//! Owns the variables' names, defaults and limits. It must not be called per
//! invocation. The AWS SDK reads its own variables itself: of those the endpoints
//! are only checked here, and Region and credentials are read to save time.

use std::ops::RangeInclusive;

use http::Uri;
use thiserror::Error;
use tracing_subscriber::filter::Targets;

use crate::aws::sqs::region_of;
use crate::aws::tls_roots::{TlsRoots, have_amazon_roots};
use crate::telemetry::TelemetryConfig;
use crate::telemetry::levels;

const DEAD_LETTER_QUEUE_URL: &str = "DEAD_LETTER_QUEUE_URL";
const WORK_QUEUE_URL: &str = "WORK_QUEUE_URL";

/// A file of root certificates that replaces all others: the variable of the AWS
/// CLI and most AWS SDKs ("General configuration settings", AWS SDKs and Tools
/// Reference Guide), though not of the SDK for Rust.
const CA_BUNDLE: &str = "AWS_CA_BUNDLE";

/// Where the system's root certificates are, in OpenSSL's variables: a file and
/// directories. They are read together: it is enough that one has a root.
const SYSTEM_ROOTS: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Lambda sets it to the level of its own filter.
const LAMBDA_LOG_LEVEL: &str = "AWS_LAMBDA_LOG_LEVEL";

const DEFAULT_FAN_OUT_ASSETS: usize = 1_000;
/// Calls in flight where nothing else is configured.
pub const DEFAULT_CALL_CONCURRENCY: usize = 8;

/// Longest namespace of CloudWatch metrics (`Namespace` of `PutMetricData`).
const NAMESPACE_LIMIT: usize = 255;

/// What the function itself is configured with.
#[derive(Clone, Debug)]
pub struct FunctionConfig {
    /// The URL of the queue for dead letters; without it failures are only
    /// returned.
    pub dead_letter_queue_url: Option<String>,
    /// The URL of the queue for parts of large requests and unfinished work;
    /// without it requests of any size are processed where they arrive. Requires
    /// a dead-letter queue.
    pub work_queue_url: Option<String>,
    /// The largest request, in assets, that is processed at once where there is a
    /// work queue.
    pub fan_out_assets: usize,
    /// Requests to SiteWise in flight in one invocation.
    pub call_concurrency: usize,
    /// The metrics' namespace; without one there are none.
    pub metrics_namespace: Option<String>,
}

impl Default for FunctionConfig {
    fn default() -> Self {
        Self {
            dead_letter_queue_url: None,
            work_queue_url: None,
            fan_out_assets: DEFAULT_FAN_OUT_ASSETS,
            call_concurrency: DEFAULT_CALL_CONCURRENCY,
            metrics_namespace: None,
        }
    }
}

/// The process's configuration.
#[derive(Debug)]
pub struct Config {
    /// What the function itself is configured with.
    pub function: FunctionConfig,
    /// The Region that the environment names.
    pub region: Option<String>,
    /// The variables whose queue is in another Region, and that Region. The SDK
    /// looks for the queue in the function's own, so that nothing can be stored.
    pub queues_elsewhere: Vec<(&'static str, String)>,
    /// Whether the environment has credentials, as Lambda's does. They take
    /// precedence, so the SDK need not prepare its other sources, which costs time
    /// at the cold start.
    pub has_credentials: bool,
    /// The root certificates that TLS trusts.
    pub tls_roots: TlsRoots,
    /// The configuration of the log.
    pub telemetry: TelemetryConfig,
}

/// An environment variable whose value is not allowed.
#[derive(Debug, Error, Eq, PartialEq)]
#[error("{variable}: expected {expected}, found {value:?}")]
pub struct InvalidVariable {
    /// The variable's name.
    pub variable: &'static str,
    /// Its value.
    pub value: String,
    /// What is allowed.
    pub expected: String,
}

impl Config {
    /// Reads the configuration from the process's environment.
    pub fn from_env() -> Result<Self, InvalidVariable> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where the environment is read"
        )]
        Self::from_lookup(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into()))
    }

    /// Reads the configuration through `lookup`. An empty value counts as none.
    pub fn from_lookup(
        lookup: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, InvalidVariable> {
        let environment = Environment(|name| lookup(name).filter(|value| !value.is_empty()));
        let dead_letter_queue_url = environment.read(DEAD_LETTER_QUEUE_URL, url)?;
        let work_queue_url = environment.read(WORK_QUEUE_URL, |value| {
            let work_queue_url = url(value)?;
            match &dead_letter_queue_url {
                None => Err(format!("{DEAD_LETTER_QUEUE_URL} beside it")),
                Some(other) if is_same_queue(other, &work_queue_url) => {
                    Err(format!("another queue than {DEAD_LETTER_QUEUE_URL}"))
                }
                Some(_) => Ok(work_queue_url),
            }
        })?;
        let fan_out_assets = environment.read("FAN_OUT_ASSETS", number(100..=25_000))?;
        let call_concurrency = environment.read("CALL_CONCURRENCY", number(1..=64))?;
        let metrics_namespace =
            environment.read("POWERTOOLS_METRICS_NAMESPACE", metrics_namespace)?;
        let regions = ["AWS_REGION", "AWS_DEFAULT_REGION"];
        let region = regions.into_iter().find_map(&environment.0);
        let queues = [
            (DEAD_LETTER_QUEUE_URL, &dead_letter_queue_url),
            (WORK_QUEUE_URL, &work_queue_url),
        ];
        let queue_regions = queues.into_iter().filter_map(|(variable, url)| {
            let queue_region = region_of(url.as_deref()?)?;
            (queue_region != *region.as_ref()?).then_some((variable, queue_region))
        });
        let queues_elsewhere = queue_regions.collect();
        let credentials = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
        Ok(Self {
            telemetry: environment.telemetry(metrics_namespace.is_some())?,
            tls_roots: environment.tls_roots(region.as_deref())?,
            region,
            queues_elsewhere,
            has_credentials: credentials.into_iter().all(|variable| {
                let value = (environment.0)(variable);
                value.is_some_and(|value| !value.trim().is_empty())
            }),
            function: FunctionConfig {
                dead_letter_queue_url,
                work_queue_url,
                fan_out_assets: fan_out_assets.unwrap_or(DEFAULT_FAN_OUT_ASSETS),
                call_concurrency: call_concurrency.unwrap_or(DEFAULT_CALL_CONCURRENCY),
                metrics_namespace,
            },
        })
    }
}

/// Looks environment variables up.
struct Environment<F>(F);

impl<F: Fn(&'static str) -> Option<String>> Environment<F> {
    /// Reads a variable through `parse`, which fails with what is allowed.
    fn read<T>(
        &self,
        variable: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, InvalidVariable> {
        let value = (self.0)(variable);
        let parsed = value.map(|value| {
            parse(&value).map_err(|expected| InvalidVariable {
                variable,
                value,
                expected,
            })
        });
        parsed.transpose()
    }

    /// Chooses the root certificates: the system's for an endpoint of the
    /// operator's own, which may have any authority, and for Regions whose
    /// endpoints are not known to have Amazon's.
    fn tls_roots(&self, region: Option<&str>) -> Result<TlsRoots, InvalidVariable> {
        let mut has_own_endpoint = false;
        for variable in [
            "AWS_ENDPOINT_URL",
            "AWS_ENDPOINT_URL_IOTSITEWISE",
            "AWS_ENDPOINT_URL_SQS",
        ] {
            let endpoint = self.read(variable, url)?;
            has_own_endpoint |=
                endpoint.is_some_and(|url| url.to_ascii_lowercase().starts_with("https:"));
        }
        let named = [CA_BUNDLE, SYSTEM_ROOTS[0], SYSTEM_ROOTS[1]]
            .into_iter()
            .find_map(|variable| Some((variable, (self.0)(variable)?)));
        let roots = match &named {
            Some((CA_BUNDLE, file)) => TlsRoots::from_file(file),
            None if !has_own_endpoint && region.is_none_or(have_amazon_roots) => {
                Ok(TlsRoots::amazon())
            }
            _ => TlsRoots::from_system(),
        };
        roots.map_err(|reason| {
            let (variable, value) = named.unwrap_or((SYSTEM_ROOTS[0], String::new()));
            InvalidVariable {
                variable,
                value,
                expected: format!("a path to root certificates in PEM format ({reason})"),
            }
        })
    }

    fn telemetry(&self, has_metrics: bool) -> Result<TelemetryConfig, InvalidVariable> {
        let default = TelemetryConfig::default();
        let filter = self.log_filter()?.unwrap_or(default.filter);
        let lambda_level = (self.0)(LAMBDA_LOG_LEVEL).unwrap_or_default();
        Ok(TelemetryConfig {
            service: (self.0)("POWERTOOLS_SERVICE_NAME").unwrap_or(default.service),
            filter: levels::with_required(filter, has_metrics),
            metrics_level: levels::metrics_level(&lambda_level),
        })
    }

    /// Returns the log filter: Lambda's level, else Powertools', else `RUST_LOG`.
    fn log_filter(&self) -> Result<Option<Targets>, InvalidVariable> {
        for variable in [LAMBDA_LOG_LEVEL, "POWERTOOLS_LOG_LEVEL"] {
            let level = self.read(variable, |level| {
                let expected = "one of TRACE, DEBUG, INFO, WARN, ERROR, FATAL";
                levels::level(level).ok_or_else(|| expected.to_owned())
            })?;
            if let Some(level) = level {
                return Ok(Some(Targets::new().with_default(level)));
            }
        }
        self.read("RUST_LOG", |filter| {
            filter.parse().map_err(|error| {
                format!("a filter such as info or sitewise_disassociator=debug ({error})")
            })
        })
    }
}

fn url(value: &str) -> Result<String, String> {
    let is_valid = value.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
    });
    if is_valid {
        Ok(value.to_owned())
    } else {
        Err("a URL with http or https".to_owned())
    }
}

/// Returns whether two URLs name one queue: the case of the host and a trailing
/// slash make no difference.
fn is_same_queue(one: &str, other: &str) -> bool {
    let queue = |url: &str| {
        let url: Uri = url.parse().ok()?;
        let path = url.path().trim_end_matches('/').to_owned();
        Some((url.host()?.to_ascii_lowercase(), url.port_u16(), path))
    };
    queue(one) == queue(other)
}

fn number(allowed: RangeInclusive<usize>) -> impl FnOnce(&str) -> Result<usize, String> {
    move |value| match value.parse() {
        Ok(number) if allowed.contains(&number) => Ok(number),
        _ => {
            let (least, most) = allowed.into_inner();
            Err(format!("a whole number from {least} to {most}"))
        }
    }
}

fn metrics_namespace(value: &str) -> Result<String, String> {
    let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || " .-_/#:".contains(letter);
    let is_valid = value.len() <= NAMESPACE_LIMIT
        && value.chars().all(is_allowed)
        && !value.trim().is_empty()
        && !value.starts_with(':')
        && !value.starts_with("AWS/");
    if is_valid {
        Ok(value.to_owned())
    } else {
        Err(format!(
            "at most {NAMESPACE_LIMIT} letters, digits, blanks or .-_/#:, not beginning with : or \
             AWS/"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn config(variables: &[(&'static str, &str)]) -> Result<Config, String> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        Config::from_lookup(|name| variables.get(name).map(ToString::to_string))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_the_contracts() {
        for nothing in [
            &[][..],
            &[(DEAD_LETTER_QUEUE_URL, ""), ("CALL_CONCURRENCY", "")],
        ] {
            let config = config(nothing).expect("the defaults");
            assert_eq!(config.function.dead_letter_queue_url, None);
            assert_eq!(config.function.work_queue_url, None);
            assert_eq!(config.function.fan_out_assets, 1000);
            assert_eq!(config.function.call_concurrency, 8);
            assert_eq!(config.telemetry.service, "sitewise-disassociator");
            assert_eq!(config.telemetry.metrics_level, "INFO");
            assert_eq!(config.function.metrics_namespace, None);
        }
    }

    #[test]
    fn values_are_taken_to_their_limits() {
        let config = config(&[
            (
                DEAD_LETTER_QUEUE_URL,
                "https://sqs.eu-west-1.amazonaws.com/1/dead",
            ),
            (WORK_QUEUE_URL, "http://127.0.0.1:9000/1/work.fifo"),
            ("FAN_OUT_ASSETS", "25000"),
            ("CALL_CONCURRENCY", "64"),
            ("POWERTOOLS_SERVICE_NAME", "decommissioning"),
            ("POWERTOOLS_METRICS_NAMESPACE", "Plant 7/SiteWise#1:a_b-c.d"),
        ])
        .expect("valid");
        assert_eq!(
            config.function.dead_letter_queue_url.as_deref(),
            Some("https://sqs.eu-west-1.amazonaws.com/1/dead")
        );
        assert_eq!(
            config.function.work_queue_url.as_deref(),
            Some("http://127.0.0.1:9000/1/work.fifo")
        );
        assert_eq!(
            (
                config.function.fan_out_assets,
                config.function.call_concurrency
            ),
            (25_000, 64)
        );
        assert_eq!(config.telemetry.service, "decommissioning");
        assert_eq!(
            config.function.metrics_namespace.as_deref(),
            Some("Plant 7/SiteWise#1:a_b-c.d")
        );
    }

    #[test]
    fn a_wrong_value_names_variable_value_and_what_is_allowed() {
        for (variable, value, expected) in [
            ("FAN_OUT_ASSETS", "99", "a whole number from 100 to 25000"),
            (
                "FAN_OUT_ASSETS",
                "25001",
                "a whole number from 100 to 25000",
            ),
            ("FAN_OUT_ASSETS", "1e3", "a whole number from 100 to 25000"),
            ("CALL_CONCURRENCY", "0", "a whole number from 1 to 64"),
            ("CALL_CONCURRENCY", "65", "a whole number from 1 to 64"),
            ("CALL_CONCURRENCY", "-1", "a whole number from 1 to 64"),
            (
                DEAD_LETTER_QUEUE_URL,
                "arn:aws:sqs:eu-west-1:1:dead",
                "a URL with http or https",
            ),
            (WORK_QUEUE_URL, "/queue", "a URL with http or https"),
            (
                "AWS_ENDPOINT_URL",
                "localhost:9000",
                "a URL with http or https",
            ),
            (
                "AWS_ENDPOINT_URL_IOTSITEWISE",
                "ftp://x",
                "a URL with http or https",
            ),
            (
                "AWS_ENDPOINT_URL_SQS",
                "not a URL",
                "a URL with http or https",
            ),
            (
                "AWS_LAMBDA_LOG_LEVEL",
                "LOUD",
                "one of TRACE, DEBUG, INFO, WARN, ERROR, FATAL",
            ),
            (
                "POWERTOOLS_LOG_LEVEL",
                "LOUD",
                "one of TRACE, DEBUG, INFO, WARN, ERROR, FATAL",
            ),
        ] {
            assert_eq!(
                config(&[(variable, value)]).map(drop),
                Err(format!("{variable}: expected {expected}, found {value:?}"))
            );
        }
        let too_long = "n".repeat(256);
        for namespace in ["AWS/Lambda", ":a", "a\nb", "ä", " ", &too_long] {
            assert_eq!(
                config(&[("POWERTOOLS_METRICS_NAMESPACE", namespace)]).map(drop),
                Err(format!(
                    "POWERTOOLS_METRICS_NAMESPACE: expected at most 255 letters, digits, blanks or \
                     .-_/#:, not beginning with : or AWS/, found {namespace:?}"
                ))
            );
        }
        let queue = "https://sqs.eu-west-1.amazonaws.com/1/one";
        for same in [
            queue,
            "https://sqs.eu-west-1.amazonaws.com/1/one/",
            "https://SQS.eu-west-1.amazonaws.com/1/one",
        ] {
            assert_eq!(
                config(&[(DEAD_LETTER_QUEUE_URL, queue), (WORK_QUEUE_URL, same)]).map(drop),
                Err(format!(
                    "WORK_QUEUE_URL: expected another queue than DEAD_LETTER_QUEUE_URL, found \
                     {same:?}"
                ))
            );
        }
        for filter in ["a=b=c", "a=loud", "[span{field=1}]=debug"] {
            let error = config(&[("RUST_LOG", filter)])
                .map(drop)
                .expect_err("no filter");
            assert!(
                error.starts_with("RUST_LOG: expected a filter such as info"),
                "{error}"
            );
        }
    }

    #[test]
    fn lambdas_log_level_wins_over_powertools_over_rust_log() {
        let lambda = ("AWS_LAMBDA_LOG_LEVEL", "FATAL");
        let powertools = ("POWERTOOLS_LOG_LEVEL", "Warning");
        let rust = ("RUST_LOG", "sitewise_disassociator=trace");
        for (variables, filter) in [
            (&[][..], "info"),
            (&[rust], "sitewise_disassociator=trace"),
            (&[rust, powertools], "warn"),
            (&[rust, powertools, lambda], "error"),
        ] {
            let requested = filter.parse().expect("a filter");
            let config = config(variables).expect("valid");
            let expected = levels::with_required(requested, false);
            assert_eq!(config.telemetry.filter, expected, "{variables:?}");
        }
    }

    #[test]
    fn metrics_pass_both_filters() {
        let namespace = ("POWERTOOLS_METRICS_NAMESPACE", "Decommissioning");
        for (level, filter, metrics_level) in [
            ("AWS_LAMBDA_LOG_LEVEL", "error", "ERROR"),
            // Lambda's own filter is off.
            ("POWERTOOLS_LOG_LEVEL", "error", "INFO"),
        ] {
            let config = config(&[namespace, (level, "ERROR")]).expect("valid");
            let requested = filter.parse().expect("a filter");
            let expected = levels::with_required(requested, true);
            assert_eq!(config.telemetry.filter, expected);
            assert_eq!(config.telemetry.metrics_level, metrics_level);
        }
    }

    #[test]
    fn region_and_credentials_are_the_environments_as_the_sdk_reads_them() {
        let key = ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE");
        let secret = ("AWS_SECRET_ACCESS_KEY", "secret");
        for (variables, region, has_credentials) in [
            (&[][..], None, false),
            (&[key], None, false),
            (&[secret], None, false),
            (&[key, ("AWS_SECRET_ACCESS_KEY", " ")], None, false),
            (&[key, secret], None, true),
            (
                &[("AWS_DEFAULT_REGION", "eu-west-1")],
                Some("eu-west-1"),
                false,
            ),
            (
                &[
                    ("AWS_DEFAULT_REGION", "us-east-1"),
                    ("AWS_REGION", "eu-west-1"),
                ],
                Some("eu-west-1"),
                false,
            ),
        ] {
            let config = config(variables).expect("valid");
            let found = (config.region.as_deref(), config.has_credentials);
            assert_eq!(found, (region, has_credentials), "{variables:?}");
        }
    }

    #[test]
    fn a_queue_in_another_region_is_known_by_its_url() {
        let dead_letters = "https://sqs.eu-west-1.amazonaws.com/1/dead";
        for (work, elsewhere) in [
            ("https://sqs.eu-west-1.amazonaws.com/1/work", None),
            (
                "https://sqs.eu-west-2.amazonaws.com/1/work",
                Some("eu-west-2"),
            ),
            (
                "https://sqs-fips.us-east-1.amazonaws.com/1/work",
                Some("us-east-1"),
            ),
            (
                "https://sqs.cn-north-1.amazonaws.com.cn/1/work",
                Some("cn-north-1"),
            ),
            ("https://sqs.us-east-1.api.aws/1/work", Some("us-east-1")),
            (
                "https://EU-WEST-2.queue.amazonaws.com/1/work",
                Some("eu-west-2"),
            ),
            ("https://eu-west-1.queue.amazonaws.com/1/work", None),
            ("https://queue.amazonaws.com/1/work", None),
            ("https://sqs.example.com/1/work", None),
            ("http://127.0.0.1:9000/1/work", None),
        ] {
            let config = config(&[
                ("AWS_REGION", "eu-west-1"),
                (DEAD_LETTER_QUEUE_URL, dead_letters),
                (WORK_QUEUE_URL, work),
            ]);
            let expected = elsewhere.map(|region| (WORK_QUEUE_URL, region.to_owned()));
            let config = config.expect("valid");
            assert_eq!(config.queues_elsewhere, Vec::from_iter(expected), "{work}");
        }
    }

    #[test]
    fn tls_trusts_amazons_roots_unless_something_calls_for_others() {
        let here = ("AWS_REGION", "eu-west-1");
        let elsewhere = ("AWS_REGION", "cn-north-1");
        let plain = ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000");
        let has_amazons = |variables: &[(&'static str, &str)]| {
            let roots = config(variables).map(|config| config.tls_roots);
            roots == Ok(TlsRoots::amazon())
        };
        for amazons in [
            &[][..],
            &[here],
            &[here, plain],
            &[here, ("SSL_CERT_FILE", ""), ("AWS_CA_BUNDLE", "")],
            &[("AWS_DEFAULT_REGION", "us-gov-west-1")],
            &[here, ("AWS_DEFAULT_REGION", "cn-north-1")],
        ] {
            assert!(has_amazons(amazons), "{amazons:?}");
        }
        for others in [
            &[elsewhere][..],
            &[elsewhere, ("AWS_DEFAULT_REGION", "eu-west-1")],
            &[here, ("AWS_ENDPOINT_URL", "https://localhost")],
            &[here, ("AWS_ENDPOINT_URL_SQS", "HTTPS://localhost"), plain],
            &[here, ("AWS_ENDPOINT_URL_IOTSITEWISE", "https://localhost")],
            &[here, ("SSL_CERT_FILE", "/roots.pem")],
            &[here, ("SSL_CERT_DIR", "/roots")],
            &[here, ("AWS_CA_BUNDLE", "/roots.pem")],
        ] {
            assert!(!has_amazons(others), "{others:?}");
        }
    }
}
