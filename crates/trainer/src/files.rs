//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::errors::{Result, TrainerError};

/// Writes `bytes` beside `path` and renames, so that a reader sees the old content or the new, never a part.
///
/// # Errors
/// When the folder cannot be written or the disk is full; the message names the file.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".partial");
    let temporary = PathBuf::from(temporary);
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        // Some file systems report a full disk only here.
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(TrainerError::io("write", path))
}
