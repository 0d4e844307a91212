//! Whether the published crates package, and build from what they package.

use crate::ci::{PUBLISHED, succeed};
use crate::exit::Failure;
use crate::tools;
use std::env;
use std::fs;
use std::path::PathBuf;

/// Packages the published crates, each of which Cargo builds from its package.
pub(crate) fn check() -> Result<(), Failure> {
    forget_unpacked()?;
    let mut command = tools::cargo();
    command
        .args(["package", "--allow-dirty"])
        // Cargo builds them in the profile `dev`, all that they depend on as well, and nobody debugs that.
        .env("CARGO_PROFILE_DEV_DEBUG", "0");
    for package in PUBLISHED {
        command.args(["--package", package]);
    }
    succeed(command)
}

/// Removes what an earlier `cargo package` has unpacked of the published crates.
///
/// One package finds another in a registry that Cargo makes up in the target folder. Cargo unpacks it into
/// `CARGO_HOME/registry/src/-HASH`, where HASH is of the folder's path alone, and reads what lies there without a look at the
/// checksum: the crates of an earlier checkout at the same path. A registry with a host has it before the dash.
fn forget_unpacked() -> Result<(), Failure> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".cargo")));
    let Some(Ok(registries)) = home.map(|home| home.join("registry/src").read_dir()) else {
        return Ok(());
    };
    let folders = registries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with('-'))
        .filter_map(|entry| entry.path().read_dir().ok())
        .flat_map(|entries| entries.flatten());
    for folder in folders {
        let (path, name) = (folder.path(), folder.file_name());
        let is_of = |package: &&str| name.to_string_lossy().starts_with(&format!("{package}-"));
        if PUBLISHED.iter().any(is_of) {
            fs::remove_dir_all(&path).map_err(|error| {
                Failure::run(format!("cannot remove {}: {error}", path.display()))
            })?;
        }
    }
    Ok(())
}
