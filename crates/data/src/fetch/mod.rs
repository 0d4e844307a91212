//! Fetching the data set into the cache, from the first source that delivers it.
//!
//! A source hands over decompressed bytes. They are compared with the pinned checksums in memory, written beside their
//! destination, and renamed into place one by one. A reader needs all four files, each of which is complete from the
//! moment it is visible, so that a broken fetch never counts as data and two processes fetching at once do no harm.

mod bounded;
pub mod debian;
#[cfg(feature = "hub")]
pub mod hub;

use crate::error::{Attempt, DataError};
use crate::idx::{IdxFile, sha256};
use crate::load::check_sum;
use crate::locate::{self, Location, SearchOptions, SourceKind, find};
use crate::part::Part;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Somewhere to get the data set from.
pub trait Source {
    /// The source's name in messages.
    fn name(&self) -> String;

    /// The four files as decompressed IDX bytes, in the order of [`Part::ALL`]. They are verified by the caller.
    ///
    /// `scratch` is an empty directory for the source's own use that is deleted afterwards. A source gives up by itself
    /// within a bound of its own.
    ///
    /// # Errors
    /// Why the data could not be had.
    fn fetch(&self, scratch: &Path) -> Result<[Vec<u8>; 4], DataError>;
}

/// The sources that there are: the Hugging Face hub (with the feature `hub`), then Debian's package.
pub fn default_sources() -> Vec<Box<dyn Source>> {
    vec![
        #[cfg(feature = "hub")]
        Box::new(hub::Hub::from_environment()),
        Box::new(debian::Debian::from_environment()),
    ]
}

/// Finds the data set, or fetches it into the cache when no place has it.
///
/// A directory named by the user that lacks the data stays an error.
///
/// # Errors
/// [`DataError::Given`] as in [`find`]; [`DataError::Unavailable`] with every place and every source, the reason for
/// each, and how to get the data by hand; [`DataError::NoCacheDirectory`].
pub fn find_or_fetch(options: &SearchOptions) -> Result<Location, DataError> {
    find_or_fetch_from(options, &default_sources())
}

/// As [`find_or_fetch`], with the sources given.
///
/// # Errors
/// Those of [`find_or_fetch`].
pub fn find_or_fetch_from(
    options: &SearchOptions,
    sources: &[Box<dyn Source>],
) -> Result<Location, DataError> {
    let searched = match find(options) {
        Err(DataError::NotFound { searched }) => searched,
        other => return other,
    };
    let cache = options
        .cache
        .as_deref()
        .ok_or(DataError::NoCacheDirectory)?;
    tracing::info!(cache = %cache.display(), "Fashion-MNIST is in none of the usual places; fetching it");
    match fetch(cache, sources) {
        Err(DataError::Unavailable { fetched, .. }) => {
            Err(DataError::Unavailable { searched, fetched })
        }
        other => other,
    }
}

/// Fetches the data set into the directory `cache` from the first of `sources` that delivers it.
///
/// # Errors
/// [`DataError::Unavailable`] with the reason of each source, [`DataError::Io`] if the cache cannot be written.
pub fn fetch(cache: &Path, sources: &[Box<dyn Source>]) -> Result<Location, DataError> {
    std::fs::create_dir_all(cache).map_err(DataError::io(cache, "create the directory"))?;
    let mut fetched = Vec::new();
    for source in sources {
        let name = source.name();
        tracing::info!(source = name, "fetching Fashion-MNIST");
        match deliver(source.as_ref()) {
            Ok(files) => {
                // A full or read-only disk would defeat the next source as well.
                publish(&files, cache)?;
                tracing::info!(source = name, cache = %cache.display(), "fetched and verified");
                return locate::locate(cache, SourceKind::Cache);
            }
            Err(error) => {
                tracing::warn!(source = name, "gave up: {error}");
                fetched.push(Attempt {
                    what: name,
                    reason: error.to_string(),
                });
            }
        }
    }
    Err(DataError::Unavailable {
        searched: Vec::new(),
        fetched,
    })
}

/// The verified files of one source.
fn deliver(source: &dyn Source) -> Result<[Vec<u8>; 4], DataError> {
    let temporary = std::env::temp_dir();
    let scratch =
        tempfile::tempdir().map_err(DataError::io(&temporary, "create a directory in it"))?;
    let files = source.fetch(scratch.path())?;
    for (part, bytes) in Part::ALL.into_iter().zip(&files) {
        check_sum(part, Path::new(part.file_name()), &sha256(bytes))?;
    }
    Ok(files)
}

/// Puts the files into the cache, decompressed: a later load then costs a read and a checksum.
fn publish(files: &[Vec<u8>; 4], cache: &Path) -> Result<(), DataError> {
    // Inside the cache, so that renaming stays within one file system wherever the cache is mounted.
    let staging = tempfile::Builder::new()
        .prefix(".partial-")
        .tempdir_in(cache)
        .map_err(DataError::io(cache, "create a directory in it"))?;
    for (part, bytes) in Part::ALL.into_iter().zip(files) {
        let path = staging.path().join(part.file_name());
        File::create(&path)
            .and_then(|mut file| {
                file.write_all(bytes)?;
                // Otherwise a power cut can leave the new name with old, empty contents.
                file.sync_all()
            })
            .map_err(DataError::io(&path, "write the file"))?;
    }
    for part in Part::ALL {
        let destination = cache.join(part.file_name());
        std::fs::rename(staging.path().join(part.file_name()), &destination)
            .map_err(DataError::io(&destination, "move the fetched file there"))?;
    }
    Ok(())
}

/// The decompressed contents of the four files in `dir`, structure checked.
fn read_dir(dir: &Path) -> Result<[Vec<u8>; 4], DataError> {
    let [a, b, c, d] = locate::locate(dir, SourceKind::Explicit)?.read_each();
    let bytes = |file: Result<crate::idx::Loaded, DataError>| -> Result<Vec<u8>, DataError> {
        Ok(IdxFile::into_bytes(file?.file))
    };
    Ok([bytes(a)?, bytes(b)?, bytes(c)?, bytes(d)?])
}
