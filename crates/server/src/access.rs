//! What a cluster wants to see before it answers.

use std::path::PathBuf;

use crate::tls::CertificateFiles;

/// What an etcd cluster wants to see and to show. All of it may be missing.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The certificates that sign the cluster's. `None`: those that the system trusts.
    pub authorities: Option<PathBuf>,
    /// Our own certificate.
    pub certificate: Option<CertificateFiles>,
    /// A user, and the file with the password.
    pub user: Option<(String, PathBuf)>,
}
