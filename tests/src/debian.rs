//! Programs that only a newer Debian release has, unpacked beside the system: nothing of it
//! is installed.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::peers;

/// The release they are taken from.
const SUITE: &str = "trixie";
/// The key its lists are signed with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A folder with gVisor's `usr/bin/runsc`.
///
/// # Errors
/// When the packages cannot be had.
pub fn runsc() -> anyhow::Result<PathBuf> {
    let tree = unpacked("runsc", "the isolation stack of gVisor")?;
    Ok(tree.join("usr/bin/runsc"))
}

/// A folder to be the root of `usr/bin/wasmedge`.
///
/// # Errors
/// When the packages cannot be had.
pub fn wasmedge() -> anyhow::Result<PathBuf> {
    unpacked("wasmedge", "the isolation stack of a WebAssembly engine")
}

/// A package and what it needs, unpacked.
fn unpacked(package: &str, why: &str) -> anyhow::Result<PathBuf> {
    let dir = peers::cached(&format!("debian-{SUITE}-{package}"), why, |fresh| {
        let apt = fresh.join("apt");
        download(package, &apt)?;
        let tree = fresh.join("root");
        fs::create_dir_all(tree.join("usr"))?;
        for name in ["bin", "lib", "lib64", "sbin"] {
            fs::create_dir_all(tree.join("usr").join(name))?;
            symlink(format!("usr/{name}"), tree.join(name))?;
        }
        for entry in fs::read_dir(apt.join("cache/archives"))?.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "deb") {
                peers::run(Command::new("dpkg").arg("-x").arg(&path).arg(&tree))?;
            }
        }
        fs::remove_dir_all(&apt)?;
        Ok(())
    })?;
    Ok(dir.join("root"))
}

/// Fetches a package and its dependencies by apt, with lists and cache of its own.
fn download(package: &str, dir: &Path) -> anyhow::Result<()> {
    for name in ["lists/partial", "cache/archives/partial", "parts"] {
        fs::create_dir_all(dir.join(name))?;
    }
    fs::write(dir.join("status"), "")?;
    let sources = format!("deb [signed-by={KEYRING}] {} {SUITE} main\n", mirror()?);
    fs::write(dir.join("sources.list"), sources)?;
    let at = |name: &str| dir.join(name).display().to_string();
    let config = format!(
        "Dir::Etc::sourcelist \"{}\";\nDir::Etc::sourceparts \"{}\";\nDir::State::lists \"{}\";\n\
         Dir::State::status \"{}\";\nDir::Cache \"{}\";\nDebug::NoLocking \"1\";\n\
         APT::Sandbox::User \"root\";\n",
        at("sources.list"),
        at("parts"),
        at("lists"),
        at("status"),
        at("cache"),
    );
    let config_path = dir.join("apt.conf");
    fs::write(&config_path, config)?;
    let apt = |args: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(args).env("APT_CONFIG", &config_path);
        peers::run(&mut apt)
    };
    apt(&["update"]).with_context(|| format!("the lists of Debian {SUITE}"))?;
    apt(&[
        "install",
        "-y",
        "--no-install-recommends",
        "--download-only",
        package,
    ])
}

/// The mirror that this machine takes Debian from.
fn mirror() -> anyhow::Result<String> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(ORIGIN) $(SITE)"])
        .output()
        .context("apt-get")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let site = text.lines().find_map(|line| line.strip_prefix("Debian "));
    ensure!(
        Path::new(KEYRING).exists() && site.is_some(),
        "this machine takes no packages from a Debian mirror"
    );
    Ok(site.unwrap_or_default().to_owned())
}
