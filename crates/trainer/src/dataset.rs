//! Fashion-MNIST for a command: found or fetched, verified and loaded.

use std::path::{Path, PathBuf};

use fashion_mnist::{DataError, FashionMnist, Location, SearchOptions, find};

use crate::errors::{Result, TrainerError};

/// The data set and the folder it came from.
pub struct Dataset {
    /// Both splits in memory.
    pub data: FashionMnist,
    /// The folder of the files.
    pub folder: PathBuf,
}

impl From<DataError> for TrainerError {
    fn from(error: DataError) -> Self {
        TrainerError::Data(error.to_string())
    }
}

/// Finds the data set, in `folder` alone where one is given, and fetches it where no usual place has it.
///
/// # Errors
/// When the data is neither there nor to be had, with every place tried.
pub fn locate(folder: Option<&Path>) -> Result<Location> {
    let options = SearchOptions::from_environment().with_explicit(folder.map(Path::to_path_buf));
    Ok(fashion_mnist::find_or_fetch(&options)?)
}

/// Finds, verifies and loads the data set.
///
/// # Errors
/// As [`locate`], and when a file is not what it should be.
pub fn open(folder: Option<&Path>) -> Result<Dataset> {
    let location = locate(folder)?;
    let data = location.load()?;
    tracing::debug!("Fashion-MNIST from {}", location.dir.display());
    Ok(Dataset {
        data,
        folder: location.dir,
    })
}

/// Loads a data set in Fashion-MNIST's form from `folder` without comparing checksums, and says so.
///
/// # Errors
/// When `folder` has no such files, or one is malformed.
pub fn open_unverified(folder: &Path) -> Result<Dataset> {
    let options = SearchOptions::from_environment().with_explicit(Some(folder.to_path_buf()));
    let location = find(&options)?;
    let data = location.load_unverified()?;
    tracing::warn!(
        "{}: its checksums were not compared; {} images to learn from, {} to measure by",
        location.dir.display(),
        data.train.len(),
        data.test.len()
    );
    Ok(Dataset {
        data,
        folder: location.dir,
    })
}
