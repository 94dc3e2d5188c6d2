//! Reading JWKS documents: from a directory of files, and over HTTP. Everything here blocks, within bounds.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ureq::http::{StatusCode, header};
use uuid::Uuid;

use super::Jwks;
use crate::config::JwksUrl;
use crate::control::settings::KeySettings;

/// A file may be this long; a JWKS document with a hundred keys is about 50 KB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why a directory of key files can't be used. Each names the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyDirError {
    #[error("could not read the key directory {}; check that it exists and may be read", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("could not read {}; check that it exists and may be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is longer than {FILE_BYTES_MAX} bytes; a key file holds one tenant's JWKS document", path.display())]
    TooLong { path: PathBuf },
    #[error("{} is not named after a tenant; a key file is called <tenantid>.json, the tenant id being a GUID", path.display())]
    Name { path: PathBuf },
    #[error("{} is not a JWKS document ({{\"keys\": […]}})", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{}: {reason}", path.display())]
    Keys { path: PathBuf, reason: String },
}

impl KeyDirError {
    /// The tenant whose file this is about; unknown if the name doesn't say, or the whole directory can't be read.
    fn tenant(&self) -> Option<Uuid> {
        match self {
            Self::Directory { .. } => None,
            Self::Read { path, .. }
            | Self::TooLong { path }
            | Self::Name { path }
            | Self::Json { path, .. }
            | Self::Keys { path, .. } => tenant_of(path),
        }
    }
}

/// What a key directory holds.
#[derive(Debug, Default)]
pub(in crate::control) struct KeyFiles {
    /// Sorted by tenant.
    pub documents: Vec<(Uuid, Jwks)>,
    /// Files that can't be used.
    pub unusable: Vec<KeyDirError>,
}

impl KeyFiles {
    /// Reads every `<tenantid>.json` of a directory; other files are none of ours.
    pub fn read(dir: &Path) -> Self {
        let mut files = Self::default();
        if let Err(source) = files.read_entries(dir) {
            files.unusable.push(KeyDirError::Directory { path: dir.to_owned(), source });
        }
        files.documents.sort_by_key(|&(tenant, _)| tenant);
        files
    }

    fn read_entries(&mut self, dir: &Path) -> io::Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let tenant = tenant_of(&path).ok_or_else(|| KeyDirError::Name { path: path.clone() });
                match tenant.and_then(|tenant| Ok((tenant, read_file(&path)?))) {
                    Ok(document) => self.documents.push(document),
                    Err(error) => self.unusable.push(error),
                }
            }
        }
        Ok(())
    }

    /// Whether this tenant's file is gone for certain. One that can't be used, and may be this tenant's, is not: nobody
    /// meant to retire those keys.
    pub fn lacks(&self, tenant: Uuid) -> bool {
        let is_there = self.documents.binary_search_by_key(&tenant, |&(other, _)| other).is_ok();
        let may_be = |error: &KeyDirError| error.tenant().is_none_or(|other| other == tenant);
        !is_there && !self.unusable.iter().any(may_be)
    }
}

fn tenant_of(path: &Path) -> Option<Uuid> {
    path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok())
}

fn read_file(path: &Path) -> Result<Jwks, KeyDirError> {
    let unreadable = |source| KeyDirError::Read { path: path.to_owned(), source };
    let mut json = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut json).map_err(unreadable)?;
    if json.len() as u64 > FILE_BYTES_MAX {
        return Err(KeyDirError::TooLong { path: path.to_owned() });
    }
    Jwks::parse(&json).map_err(|source| KeyDirError::Json { path: path.to_owned(), source })
}

/// Where a file of this tenant is, for errors that come up after it was read.
pub(in crate::control) fn file_of(dir: &Path, tenant: Uuid) -> PathBuf {
    dir.join(format!("{tenant}.json"))
}

/// Why a tenant's JWKS could not be fetched; the keys that are there stay.
#[derive(Debug, thiserror::Error)]
pub(in crate::control) enum FetchError {
    #[error("could not fetch {url}")]
    Http { url: String, source: Box<ureq::Error> },
    #[error("{url} answered {status}, not 200; is it the JWKS of this tenant?")]
    Status { url: String, status: StatusCode },
    #[error("{url} did not answer with a JWKS document")]
    Json { url: String, source: serde_json::Error },
}

/// What a fetch came back with.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::control) enum Fetched {
    /// The entity tag still stands: nothing has changed.
    Same,
    New {
        jwks: Jwks,
        entity_tag: Option<Box<str>>,
    },
}

/// Fetches JWKS documents.
#[derive(Debug, Clone)]
pub(in crate::control) struct Fetcher {
    agent: ureq::Agent,
    url: JwksUrl,
    bytes_max: u64,
}

impl Fetcher {
    /// None when no URL is configured.
    pub fn new(settings: &KeySettings) -> Option<Self> {
        let url = settings.jwks_url.clone()?;
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(settings.fetch_timeout))
            .max_redirects(0) // keys come from where the operator said, nowhere else
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .proxy(None)
            .user_agent(concat!("wiresocket/", env!("CARGO_PKG_VERSION")))
            .build();
        Some(Self { agent: config.new_agent(), url, bytes_max: settings.jwks_bytes_max })
    }

    /// Blocks until the answer is there, at most for the configured time.
    ///
    /// # Errors
    /// [`FetchError`] names the URL.
    pub fn fetch(&self, tenant: Uuid, entity_tag: Option<&str>) -> Result<Fetched, FetchError> {
        let url = self.url.for_tenant(tenant);
        let failed = |source| FetchError::Http { url: url.clone(), source: Box::new(source) };
        let mut request = self.agent.get(&url).header(header::ACCEPT, "application/json");
        if let Some(entity_tag) = entity_tag {
            request = request.header(header::IF_NONE_MATCH, entity_tag);
        }
        let mut response = request.call().map_err(failed)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if entity_tag.is_some() => return Ok(Fetched::Same),
            status => return Err(FetchError::Status { url, status }),
        }
        let entity_tag = response.headers().get(header::ETAG);
        let entity_tag = entity_tag.and_then(|tag| tag.to_str().ok()).map(Into::into);
        let json = response.body_mut().with_config().limit(self.bytes_max).read_to_vec().map_err(failed)?;
        let jwks = Jwks::parse(&json).map_err(|source| FetchError::Json { url, source })?;
        Ok(Fetched::New { jwks, entity_tag })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_read_retires_nobodys_keys_whatever_it_is_called() {
        let parent = tempfile::tempdir().unwrap();
        let files = KeyFiles::read(&parent.path().join(Uuid::from_u128(1).to_string()));
        assert!(!files.lacks(Uuid::from_u128(1)) && !files.lacks(Uuid::from_u128(2)));
        assert!(matches!(files.unusable[..], [KeyDirError::Directory { .. }]));
    }
}
