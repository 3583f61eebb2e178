//! Names on disk, so that a restart while Kubernetes does not answer loses none.

#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::state::Source;
use crate::{
    state_file,
    workload::{NamesFrom, directory::Directory, pod::Pod},
};

/// The file in the state directory.
const FILE: &str = "names.json";
/// Form of the file; another one is not read.
const FORM: u32 = 1;
/// Most bytes read.
const MAX_FILE: u64 = 64 << 20;
/// Changes are written at most this often.
const EVERY: Duration = Duration::from_secs(5);

/// See the module's head.
pub(super) struct Cache {
    path: PathBuf,
    node: String,
    source: Arc<Source>,
}

#[derive(Serialize, Deserialize)]
struct Content {
    form: u32,
    node: String,
    pods: Vec<Pod>,
}

impl Cache {
    pub fn new(dir: &Path, node: &str, source: Arc<Source>) -> Self {
        let path = dir.join(FILE);
        source.at(path.display().to_string());
        Self {
            path,
            node: node.to_owned(),
            source,
        }
    }

    /// Takes what an earlier run left; whatever is wrong with it costs the names only.
    pub fn load(&self, directory: &Directory) {
        match self.read() {
            Ok(pods) => {
                let count = pods.len();
                for pod in pods {
                    directory.apply(pod, NamesFrom::Cache);
                }
                if count > 0 {
                    tracing::info!(pods = count, file = %self.path.display(), "Names of an earlier run are used until there are newer ones");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::info!(file = %self.path.display(), %error, "Names of an earlier run cannot be used");
            }
        }
    }

    fn read(&self) -> io::Result<Vec<Pod>> {
        let file = crate::host::proc::read_bounded(&self.path, MAX_FILE)?;
        let content: Content = serde_json::from_slice(&file)?;
        if content.form != FORM || content.node != self.node {
            return Err(io::Error::other("written for another node or version"));
        }
        // A file is as little to be trusted as its directory: same bounds as from the API.
        Ok(content.pods.into_iter().filter_map(Pod::bounded).collect())
    }

    /// Writes changes until the agent stops, and the last then. Tries the directory at once: one
    /// that cannot be written is to be known before a name is lost.
    pub async fn keep(self, directory: Arc<Directory>, stop: CancellationToken) {
        let cache = Arc::new(self);
        let mut written = directory.version();
        let mut kept = cache.do_and_tell(Self::prepare).await;
        while !stop.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.cancelled() => {}
            }
            let version = directory.version();
            if kept && version == written {
                continue;
            }
            written = version;
            let from = Arc::clone(&directory);
            kept = cache.do_and_tell(move |cache| cache.write(&from)).await;
        }
    }

    /// Off the async threads; whether it went well.
    async fn do_and_tell(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> io::Result<()> + Send + 'static,
    ) -> bool {
        let this = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&this)).await;
        let result = done.unwrap_or_else(|error| Err(io::Error::other(error)));
        match &result {
            Ok(()) => self.source.kept(),
            Err(error) => self.source.not_kept(format!(
                "{}: {error}; give --state-dir a directory that can be written",
                self.path.display()
            )),
        }
        result.is_ok()
    }

    fn prepare(&self) -> io::Result<()> {
        self.path.parent().map_or(Ok(()), state_file::prepare)
    }

    /// Beside the file, then in its place: a crash leaves the old one.
    fn write(&self, directory: &Directory) -> io::Result<()> {
        let content = Content {
            form: FORM,
            node: self.node.clone(),
            pods: directory
                .all()
                .into_iter()
                .map(Arc::unwrap_or_clone)
                .collect(),
        };
        state_file::replace(&self.path, &serde_json::to_vec(&content)?)
    }
}
