//! The page of the documentation that the guests write.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use harness::artifact;

use super::{
    report::{self, Section},
    table::{self, Column},
};

/// The page.
pub const PAGE: &str = "docs/kernels.md";

/// Writes the table, or compares with it.
pub fn settle(columns: &[Column], whole: bool, write: bool, agent: &Path) -> anyhow::Result<()> {
    ensure!(
        whole,
        "it is written from a run of all kernels: leave out --kernel"
    );
    let guests = table::guests(columns);
    let path = artifact::root().join(PAGE);
    if write {
        let output = Command::new(agent)
            .args(["doctor", "--output", "json"])
            .output()
            .context("doctor on this machine")?;
        let section = Section {
            name: "doctor:host".to_owned(),
            status: output.status.code(),
            seconds: None,
            text: String::from_utf8(output.stdout)?,
        };
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let host = table::host(Column {
            kernel: release.trim().to_owned(),
            sensors: report::sensors(&section)?,
        });
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(&path, guests + &host).with_context(|| path.display().to_string())?;
        println!("{PAGE} is written");
        return Ok(());
    }
    let known = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    ensure!(
        known.starts_with(&guests),
        "it says something else than this run; look at the difference after \
         `cargo xtask vm --write-docs`"
    );
    Ok(())
}
