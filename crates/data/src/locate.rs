//! Where the data set may lie, and which of these places has it.

use crate::error::{Attempt, DataError};
use crate::part::Part;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Debian's package `dataset-fashion-mnist` puts the four `.gz` files here.
pub const DEBIAN_DIR: &str = "/usr/share/datasets/fashion-mnist";

/// The environment variable that names a directory with the data.
pub const DIR_VARIABLE: &str = "FASHION_MNIST_DIR";

/// Where torchvision puts the files below its root.
const TORCHVISION: &str = "FashionMNIST/raw";

/// The places that [`find`] looks at. [`from_environment`](Self::from_environment) fills in the usual ones; every field
/// may be replaced, which is how tests stay away from the machine's own copy.
#[derive(Clone, Debug)]
pub struct SearchOptions {
    /// Directory given by the user (`--data`). If it lacks the data, that is an error: no other place is tried.
    pub explicit: Option<PathBuf>,
    /// Directory given by `$FASHION_MNIST_DIR`, as binding as `explicit`.
    pub environment: Option<PathBuf>,
    /// Directory that `data/fashion-mnist` and `data/FashionMNIST/raw` are looked for in.
    pub working_dir: PathBuf,
    /// Directory of the cached copy, `fashion-mnist` in the XDG cache. `None` where the environment names none.
    pub cache: Option<PathBuf>,
    /// Directory of the system's copy.
    pub system: PathBuf,
}

impl SearchOptions {
    /// The places that the environment of this process gives; an empty variable counts as unset.
    pub fn from_environment() -> Self {
        SearchOptions {
            explicit: None,
            environment: variable(DIR_VARIABLE).map(PathBuf::from),
            working_dir: PathBuf::from("."),
            cache: cache_dir_of(variable("XDG_CACHE_HOME"), variable("HOME")),
            system: PathBuf::from(DEBIAN_DIR),
        }
    }

    /// Sets the directory that the user named, if any.
    #[must_use]
    pub fn with_explicit(mut self, dir: Option<PathBuf>) -> Self {
        self.explicit = dir;
        self
    }
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self::from_environment()
    }
}

pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// `fashion-mnist` in the cache that the two variables give. A relative `$XDG_CACHE_HOME` is ignored, as the XDG base
/// directory specification demands.
pub(crate) fn cache_dir_of(
    xdg_cache_home: Option<OsString>,
    home: Option<OsString>,
) -> Option<PathBuf> {
    let absolute = |value: OsString| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    xdg_cache_home
        .and_then(absolute)
        .or_else(|| Some(home.and_then(absolute)?.join(".cache")))
        .map(|cache| cache.join("fashion-mnist"))
}

/// Which of the places a data set was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SourceKind {
    /// The directory that the user named (`--data`).
    Explicit,
    /// `$FASHION_MNIST_DIR`.
    Environment,
    /// `./data/fashion-mnist`.
    WorkingDirectory,
    /// The XDG cache, which is also where a fetched copy goes.
    Cache,
    /// Debian's package.
    System,
    /// torchvision's layout under `./data`.
    Torchvision,
}

impl std::fmt::Display for SourceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SourceKind::Explicit => "--data",
            SourceKind::Environment => "$FASHION_MNIST_DIR",
            SourceKind::WorkingDirectory => "./data/fashion-mnist",
            SourceKind::Cache => "cache",
            SourceKind::System => "Debian package",
            SourceKind::Torchvision => "torchvision layout",
        })
    }
}

/// A directory with all four files. Their contents have not been looked at: loading does that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Where the directory came from.
    pub source: SourceKind,
    /// The directory that holds the files themselves.
    pub dir: PathBuf,
    /// The files in the order of [`Part::ALL`], with `.gz` where that is the form found.
    pub files: [PathBuf; 4],
}

/// Finds the data set in the usual places, in the order of [`SourceKind`].
///
/// A directory that the user or the environment names must have the data: falling back to another copy in silence would
/// hide a typing error. The places of our own choosing are passed over if they lack a file. Each directory may hold the
/// files themselves, each plain or `.gz`, or torchvision's `FashionMNIST/raw` with them.
///
/// # Errors
/// [`DataError::Given`] for a named directory without the data, [`DataError::NotFound`] with every place and reason
/// when there is none.
///
/// # Examples
/// ```
/// use fashion_mnist::{DataError, SearchOptions, find};
///
/// let options = SearchOptions::from_environment().with_explicit(Some("/no/such/dir".into()));
/// let error = find(&options).unwrap_err();
/// assert!(matches!(error, DataError::Given { given_by: "--data", .. }));
/// assert!(error.to_string().contains("/no/such/dir"));
/// ```
pub fn find(options: &SearchOptions) -> Result<Location, DataError> {
    let named = [
        (SourceKind::Explicit, "--data", &options.explicit),
        (
            SourceKind::Environment,
            "$FASHION_MNIST_DIR",
            &options.environment,
        ),
    ];
    for (source, given_by, dir) in named {
        if let Some(dir) = dir {
            return locate(dir, source).map_err(|error| DataError::Given {
                given_by,
                source: Box::new(error),
            });
        }
    }

    let mut searched = vec![not_set("--data"), not_set("$FASHION_MNIST_DIR")];
    let data = options.working_dir.join("data");
    let places = [
        (
            SourceKind::WorkingDirectory,
            Some(data.join("fashion-mnist")),
        ),
        (SourceKind::Cache, options.cache.clone()),
        (SourceKind::System, Some(options.system.clone())),
        (SourceKind::Torchvision, Some(data.join(TORCHVISION))),
    ];
    for (source, dir) in places {
        let Some(dir) = dir else {
            searched.push(Attempt {
                what: "the XDG cache".into(),
                reason: "neither $XDG_CACHE_HOME nor $HOME is an absolute path".into(),
            });
            continue;
        };
        match locate(&dir, source) {
            Ok(location) => {
                tracing::debug!(dir = %location.dir.display(), %source, "found Fashion-MNIST");
                return Ok(location);
            }
            Err(error) => {
                if !matches!(error, DataError::DirectoryNotFound { .. }) {
                    tracing::warn!("passed over: {error}");
                }
                searched.push(Attempt {
                    what: dir.display().to_string(),
                    reason: short_reason(&error),
                });
            }
        }
    }
    Err(DataError::NotFound { searched })
}

fn not_set(what: &str) -> Attempt {
    Attempt {
        what: what.into(),
        reason: "not given".into(),
    }
}

fn short_reason(error: &DataError) -> String {
    match error {
        DataError::DirectoryNotFound { .. } => "no such directory".into(),
        other => other.to_string(),
    }
}

/// The four files of `dir` itself or of torchvision's folder below it.
pub(crate) fn locate(dir: &Path, source: SourceKind) -> Result<Location, DataError> {
    match std::fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            return Err(DataError::NotADirectory {
                path: dir.to_path_buf(),
            });
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(DataError::DirectoryNotFound {
                path: dir.to_path_buf(),
            });
        }
        Err(error) => return Err(DataError::io(dir, "look into the directory")(error)),
    }
    // `raw` alone serves who names torchvision's `FashionMNIST` folder.
    let candidates = [dir.to_path_buf(), dir.join(TORCHVISION), dir.join("raw")];
    let mut fullest: Option<DataError> = None;
    let mut most = None;
    for candidate in candidates {
        let error = match files_in(&candidate)? {
            Ok(files) => {
                return Ok(Location {
                    source,
                    dir: candidate,
                    files,
                });
            }
            Err(missing) => missing,
        };
        let found = Part::ALL.len() - error.len();
        if most.is_none_or(|most| found > most) {
            most = Some(found);
            fullest = Some(DataError::MissingFiles {
                path: candidate,
                found,
                missing: error,
            });
        }
    }
    Err(fullest.unwrap_or_else(|| DataError::DirectoryNotFound {
        path: dir.to_path_buf(),
    }))
}

/// The paths of the four files, or the ones that are missing. A plain file is preferred: it needs no decompression.
fn files_in(dir: &Path) -> Result<Result<[PathBuf; 4], Vec<Part>>, DataError> {
    let mut files: [PathBuf; 4] = Default::default();
    let mut missing = Vec::new();
    for (part, file) in Part::ALL.into_iter().zip(&mut files) {
        let plain = dir.join(part.file_name());
        let gzip = dir.join(format!("{part}.gz"));
        if exists(&plain)? {
            *file = plain;
        } else if exists(&gzip)? {
            *file = gzip;
        } else {
            missing.push(part);
        }
    }
    Ok(if missing.is_empty() {
        Ok(files)
    } else {
        Err(missing)
    })
}

fn exists(path: &Path) -> Result<bool, DataError> {
    path.try_exists()
        .map_err(DataError::io(path, "look for the file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(xdg: Option<&str>, home: Option<&str>) -> Option<PathBuf> {
        cache_dir_of(xdg.map(Into::into), home.map(Into::into))
    }

    #[test]
    fn the_cache_follows_the_xdg_specification() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(cache(Some("/x"), Some("/h")), path("/x/fashion-mnist"));
        assert_eq!(cache(None, Some("/h")), path("/h/.cache/fashion-mnist"));
        assert_eq!(
            cache(Some("relative"), Some("/h")),
            path("/h/.cache/fashion-mnist")
        );
        assert_eq!(cache(None, Some("relative")), None);
        assert_eq!(cache(None, None), None);
    }
}
