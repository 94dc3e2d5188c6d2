//! The files that a node reads at its start besides its configuration: what `check-config` finds out of them, and what ends a
//! start.
//!
//! Absent: key sets (`auth.key_dir`) and the journal, which their own modules read.

use super::NodeError;
use crate::config::{DashboardSettings, NodeConfig};
use crate::secret_file;

/// Opens what a node with this configuration would open. A file that is not on this host, or not for whoever asks, may be
/// there for the node: that is a warning, as is what the node would start with all the same.
///
/// # Errors
/// [`NodeError`], as at the start.
pub fn check_files(config: &NodeConfig) -> Result<Vec<String>, NodeError> {
    let mut warnings = Vec::new();
    if let Some(dir) = config.keys.key_dir.as_ref().filter(|dir| !dir.is_dir()) {
        warnings.push(format!("auth.key_dir is no directory on this host: {}", dir.display()));
    }
    match config.tls.files().map(|files| files.check()) {
        Some(Ok(warning)) => warnings.extend(warning.map(|warning| format!("TLS: {warning}"))),
        Some(Err(error)) if error.is_of_this_host() => {
            warnings.push(format!("TLS, as seen from here: {error}"))
        }
        Some(Err(error)) => return Err(error.into()),
        None => {}
    }
    check_secrets(&config.dashboard)?;
    Ok(warnings)
}

/// A node that would be refused its own secrets later does not start. Those that aren't there yet may still come.
pub(super) fn check_secrets(config: &DashboardSettings) -> Result<(), NodeError> {
    let named = config.enrolment_secret_file.iter().chain([&config.credential_file]);
    for path in named.filter(|_| config.url.is_some()) {
        match secret_file::check(path) {
            Err(source) if secret_file::is_exposed(&source) => {
                return Err(NodeError::Secret { path: path.clone(), source });
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
