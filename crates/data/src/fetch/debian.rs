//! Debian's package `dataset-fashion-mnist`, downloaded and unpacked without root and without installing it.

use super::bounded::Programs;
use super::{Source, read_dir};
use crate::error::DataError;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PACKAGE: &str = "dataset-fashion-mnist";

/// The package as `apt-get download` gets it.
#[derive(Clone, Debug)]
pub struct Debian {
    /// Where `apt-get` and `dpkg-deb` are looked for, a list as in `$PATH`.
    pub search_path: OsString,
    /// All programs together are killed after this time.
    pub timeout: Duration,
}

impl Debian {
    /// Programs from `$PATH`, for at most three minutes: the package has 31 MB.
    pub fn from_environment() -> Self {
        Debian {
            search_path: crate::locate::variable("PATH").unwrap_or_default(),
            timeout: Duration::from_secs(180),
        }
    }
}

impl Source for Debian {
    fn name(&self) -> String {
        format!("Debian package {PACKAGE}")
    }

    fn fetch(&self, scratch: &Path) -> Result<[Vec<u8>; 4], DataError> {
        let programs = Programs::new(&self.search_path, scratch, self.timeout);
        // Asked first: downloading what cannot be unpacked would be a waste.
        programs.find("dpkg-deb")?;
        download(&programs, scratch)?;
        let package = downloaded(scratch)?;
        let unpacked = scratch.join("unpacked");
        programs.run("dpkg-deb", [Path::new("--extract"), &package, &unpacked])?;
        let inner = crate::locate::DEBIAN_DIR.trim_start_matches('/');
        read_dir(&unpacked.join(inner))
    }
}

/// With the system's package lists, or with fresh ones of our own where those are empty or stale, as in a container.
fn download(programs: &Programs<'_>, scratch: &Path) -> Result<(), DataError> {
    // apt waits two minutes for a server by default. The user `_apt` could not write into our private directory: root
    // stays root, and for everyone else the setting means nothing.
    let quick: Vec<OsString> = [
        "--option=Acquire::Retries=0",
        "--option=Acquire::http::Timeout=10",
        "--option=Acquire::https::Timeout=10",
        "--option=APT::Sandbox::User=root",
        "--quiet=2",
    ]
    .map(OsString::from)
    .to_vec();
    let with = |options: &[OsString], command: &[&str]| {
        let mut args = options.to_vec();
        args.extend(command.iter().map(OsString::from));
        args
    };
    let first = match programs.run("apt-get", with(&quick, &["download", PACKAGE])) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    if !worth_updating(&first) {
        return Err(first);
    }

    let mut own = quick;
    for (option, dir) in [("Dir::State::Lists", "lists"), ("Dir::Cache", "cache")] {
        let dir = scratch.join(dir);
        for partial in [dir.join("partial"), dir.join("archives/partial")] {
            std::fs::create_dir_all(&partial)
                .map_err(DataError::io(&partial, "create the directory"))?;
        }
        let mut assignment = OsString::from(format!("--option={option}="));
        assignment.push(&dir);
        own.push(assignment);
    }
    // One unreachable repository among many makes this fail, while the list that matters may have arrived.
    let updated = programs.run("apt-get", with(&own, &["update"]));
    match (
        programs.run("apt-get", with(&own, &["download", PACKAGE])),
        updated,
    ) {
        (Ok(()), _) => Ok(()),
        (Err(DataError::ProgramFailed { .. }), Err(error)) => Err(error),
        (Err(error), _) => Err(error),
    }
}

/// Whether newer package lists could help. They cannot when apt is missing, overran, or has no network.
fn worth_updating(error: &DataError) -> bool {
    const NO_NETWORK: [&str; 5] = [
        "resolving",
        "Could not resolve",
        "Could not connect",
        "Unable to connect",
        "Connection timed out",
    ];
    match error {
        DataError::ProgramFailed { output, .. } => {
            !NO_NETWORK.iter().any(|words| output.contains(words))
        }
        _ => false,
    }
}

fn downloaded(scratch: &Path) -> Result<PathBuf, DataError> {
    let missing = || DataError::ProgramFailed {
        command: format!("apt-get download {PACKAGE}"),
        status: "success reported".into(),
        output: "no package file was left".into(),
    };
    let entries =
        std::fs::read_dir(scratch).map_err(DataError::io(scratch, "list the directory"))?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(missing)
}
