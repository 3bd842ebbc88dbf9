//! Clients of remote stores: settings and credentials from the usual places, never written anywhere.

use super::Error;
use ini::Ini;
use object_store::{
    ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder,
};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Once},
    time::Duration,
};
use url::Url;

/// What a client does by itself: little. [`Store`](super::Store) tries again, and knows the deadline.
fn retry() -> RetryConfig {
    RetryConfig {
        max_retries: 2,
        retry_timeout: Duration::from_secs(15),
        ..RetryConfig::default()
    }
}

/// An endpoint given as `http://` means it.
fn client(plain: bool) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(plain)
        .with_connect_timeout(Duration::from_secs(5))
        .with_timeout(Duration::from_secs(30))
}

/// The bucket of a remote store, or `None` if the URL's scheme is no remote store's.
pub(super) fn open(parsed: &Url) -> Result<Option<Arc<dyn ObjectStore>>, Error> {
    let url = parsed.as_str();
    let failed = |source: object_store::Error| Error::Open {
        url: url.into(),
        source: Box::new(source),
    };
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Ok(Some(match parsed.scheme() {
        "s3" | "s3a" => {
            let mut builder = AmazonS3Builder::from_env();
            let profile = Profile::load(&variable, url)?;
            for (key, value) in profile.settings(&variable) {
                builder = builder.with_config(key, value);
            }
            if !profile.has_keys() && !credentials_in(|name| variable(name).is_some()) {
                return Err(Error::Credentials { url: url.into() });
            }
            let endpoints = [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint];
            let mut endpoints = endpoints
                .iter()
                .filter_map(|key| builder.get_config_value(key));
            let plain = endpoints.any(|endpoint| endpoint.starts_with("http://"));
            install_tls();
            let builder = builder.with_url(bucket(parsed)).with_retry(retry());
            Arc::new(
                builder
                    .with_client_options(client(plain))
                    .build()
                    .map_err(failed)?,
            )
        }
        "gs" => {
            install_tls();
            let builder = GoogleCloudStorageBuilder::from_env().with_url(bucket(parsed));
            Arc::new(builder.with_retry(retry()).build().map_err(failed)?)
        }
        "az" | "azure" | "abfs" | "abfss" => {
            install_tls();
            let builder = MicrosoftAzureBuilder::from_env().with_url(bucket(parsed));
            Arc::new(builder.with_retry(retry()).build().map_err(failed)?)
        }
        _ => return Ok(None),
    }))
}

/// The URL without its path: the builders take the bucket from it, and the prefix is kept in
/// [`Store`](super::Store).
fn bucket(url: &Url) -> String {
    let mut bucket = url.clone();
    bucket.set_path("");
    bucket.into()
}

/// One profile of the AWS files.
#[derive(Default)]
struct Profile(BTreeMap<String, String>);

impl Profile {
    /// `AWS_PROFILE`, or `default`, of `~/.aws/credentials` and `~/.aws/config` or the files that
    /// `AWS_SHARED_CREDENTIALS_FILE` and `AWS_CONFIG_FILE` name. A profile that was asked for by name
    /// has to be there.
    fn load(variable: &dyn Fn(&str) -> Option<String>, url: &str) -> Result<Profile, Error> {
        let asked = variable("AWS_PROFILE");
        let name = asked.as_deref().unwrap_or("default");
        let file = |override_: &str, usual: &str| {
            let home = || Some(PathBuf::from(variable("HOME")?).join(".aws").join(usual));
            variable(override_).map(PathBuf::from).or_else(home)
        };
        // In `config` every profile but the default one has the word before its name.
        let in_config = match name {
            "default" => name.to_owned(),
            name => format!("profile {name}"),
        };
        let files = [
            (file("AWS_CONFIG_FILE", "config"), in_config.as_str()),
            (file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), name),
        ];
        let (mut settings, mut found) = (BTreeMap::new(), false);
        for (path, section) in files {
            let Some(path) = path.filter(|path| path.is_file()) else {
                continue;
            };
            let unreadable = |source: ini::Error| Error::Profile {
                url: url.to_owned(),
                // The parser's message may quote a line that holds a secret.
                what: match source {
                    ini::Error::Io(error) => format!("{} can't be read: {error}", path.display()),
                    ini::Error::Parse(error) => {
                        format!("{} is damaged at line {}", path.display(), error.line)
                    }
                },
            };
            let ini = Ini::load_from_file_noescape(&path).map_err(unreadable)?;
            if let Some(section) = ini.section(Some(section)) {
                found = true;
                let pairs = section
                    .iter()
                    .map(|(key, value)| (key.to_owned(), value.to_owned()));
                settings.extend(pairs);
            }
        }
        match asked {
            Some(name) if !found => Err(Error::Profile {
                url: url.to_owned(),
                what: format!("AWS_PROFILE is '{name}', and ~/.aws has no such profile"),
            }),
            _ => Ok(Profile(settings)),
        }
    }

    fn has_keys(&self) -> bool {
        ["aws_access_key_id", "aws_secret_access_key"]
            .iter()
            .all(|key| self.0.contains_key(*key))
    }

    /// What the environment doesn't say better. Keys are taken together or not at all.
    fn settings(
        &self,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Vec<(AmazonS3ConfigKey, String)> {
        let mut wanted = Vec::new();
        if variable("AWS_ACCESS_KEY_ID").is_none() {
            wanted.extend([
                ("aws_access_key_id", AmazonS3ConfigKey::AccessKeyId),
                ("aws_secret_access_key", AmazonS3ConfigKey::SecretAccessKey),
                ("aws_session_token", AmazonS3ConfigKey::Token),
            ]);
        }
        if variable("AWS_REGION").is_none() && variable("AWS_DEFAULT_REGION").is_none() {
            wanted.push(("region", AmazonS3ConfigKey::Region));
        }
        let endpoints = ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"];
        if endpoints.iter().all(|name| variable(name).is_none()) {
            wanted.push(("endpoint_url", AmazonS3ConfigKey::Endpoint));
        }
        let known = wanted
            .into_iter()
            .filter_map(|(name, key)| Some((key, self.0.get(name)?.clone())));
        known.collect()
    }
}

/// Whether the environment names any source of AWS credentials. Without one the client would ask
/// the instance metadata service, which outside of AWS means a long silence and an error about a
/// link-local address.
fn credentials_in(set: impl Fn(&str) -> bool) -> bool {
    (set("AWS_ACCESS_KEY_ID") && set("AWS_SECRET_ACCESS_KEY"))
        || (set("AWS_WEB_IDENTITY_TOKEN_FILE") && set("AWS_ROLE_ARN"))
        || set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        || set("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        || set("AWS_SKIP_SIGNATURE")
        || set("AWS_METADATA_ENDPOINT")
}

/// Installs the process's TLS provider, once: reqwest is built without a default one, and a process needs
/// exactly one.
pub fn install_tls() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // An error means that the program has installed its own provider, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aws_credentials_are_asked_for_by_name() {
        assert!(!credentials_in(|_| false));
        assert!(!credentials_in(|name| name == "AWS_ACCESS_KEY_ID"));
        assert!(credentials_in(
            |name| name.starts_with("AWS_ACCESS_KEY") || name.starts_with("AWS_SECRET")
        ));
        let error = Error::Credentials {
            url: "s3://b".into(),
        }
        .to_string();
        assert!(error.contains("AWS_ACCESS_KEY_ID") && error.contains("AWS_PROFILE"));
    }

    #[test]
    fn a_profile_gives_what_the_environment_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let config = write(
            "config",
            "[default]\nregion = eu-west-1\n[profile lab]\nendpoint_url = http://lab:9000\nregion = lab-1\n",
        );
        let credentials = write(
            "credentials",
            "[lab]\naws_access_key_id = key\naws_secret_access_key = a=b/c\\d\n",
        );
        let environment = |extra: Vec<(&'static str, &'static str)>| {
            let (config, credentials) = (config.clone(), credentials.clone());
            move |name: &str| match name {
                "AWS_CONFIG_FILE" => Some(config.clone()),
                "AWS_SHARED_CREDENTIALS_FILE" => Some(credentials.clone()),
                name => extra
                    .iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, v)| (*v).to_owned()),
            }
        };
        let settings = |extra| {
            let variable = environment(extra);
            let profile = Profile::load(&variable, "s3://b").map_err(|e| e.to_string())?;
            Ok::<_, String>((profile.has_keys(), profile.settings(&variable)))
        };
        let region = (AmazonS3ConfigKey::Region, "eu-west-1".to_owned());
        assert_eq!(settings(vec![]).unwrap(), (false, vec![region]));

        let (keys, lab) = settings(vec![("AWS_PROFILE", "lab")]).unwrap();
        assert!(keys);
        assert_eq!(
            lab[1],
            (AmazonS3ConfigKey::SecretAccessKey, "a=b/c\\d".to_owned())
        );
        assert_eq!(
            lab[3],
            (AmazonS3ConfigKey::Endpoint, "http://lab:9000".to_owned())
        );

        let given = vec![
            ("AWS_PROFILE", "lab"),
            ("AWS_ACCESS_KEY_ID", "other"),
            ("AWS_ENDPOINT_URL", "x"),
        ];
        let (_, lab) = settings(given).unwrap();
        assert_eq!(lab, [(AmazonS3ConfigKey::Region, "lab-1".to_owned())]);

        let refused = settings(vec![("AWS_PROFILE", "moon")]).unwrap_err();
        assert!(refused.contains("'moon'"), "{refused}");
    }
}
