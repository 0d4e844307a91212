//! From four files to two splits, verified on every load.

use crate::error::DataError;
use crate::idx::{self, Loaded};
use crate::locate::{Location, SourceKind, locate};
use crate::part::Part;
use crate::split::Split;
use std::path::Path;

/// The whole data set in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FashionMnist {
    /// 60,000 images to learn from.
    pub train: Split,
    /// 10,000 images to measure by.
    pub test: Split,
}

/// Loads the four files of `dir` (or of torchvision's `FashionMNIST/raw` below it), checks everything including the
/// pinned SHA-256 of each decompressed file, and resizes the images to 32 x 32.
///
/// # Errors
/// [`DataError`] has a variant for each way in which a file can be wrong. The structure of all files is checked first,
/// then genuine files under the wrong name, then counts, then the remaining checksums.
///
/// # Examples
/// ```no_run
/// use fashion_mnist::{SearchOptions, find, load};
///
/// let location = find(&SearchOptions::from_environment())?;
/// let data = load(&location.dir)?;
/// assert_eq!((data.train.len(), data.test.len()), (60_000, 10_000));
/// # Ok::<(), fashion_mnist::DataError>(())
/// ```
pub fn load(dir: &Path) -> Result<FashionMnist, DataError> {
    locate(dir, SourceKind::Explicit)?.load()
}

/// As [`load`], without the checksums: any data set in Fashion-MNIST's form, such as a small made-up one.
///
/// # Errors
/// Those of [`load`] that do not rest on a checksum.
pub fn load_unverified(dir: &Path) -> Result<FashionMnist, DataError> {
    locate(dir, SourceKind::Explicit)?.load_unverified()
}

impl Location {
    /// Loads and verifies the files that were found; see [`load`].
    ///
    /// # Errors
    /// Those of [`load`].
    pub fn load(&self) -> Result<FashionMnist, DataError> {
        self.load_with(true)
    }

    /// Loads the files that were found without comparing checksums; see [`load_unverified`].
    ///
    /// # Errors
    /// Those of [`load_unverified`].
    pub fn load_unverified(&self) -> Result<FashionMnist, DataError> {
        self.load_with(false)
    }

    fn load_with(&self, verify: bool) -> Result<FashionMnist, DataError> {
        let files = self.read(verify)?;
        let [train_images, train_labels, test_images, test_labels] =
            files.map(|loaded| loaded.file);
        let split = |images: &idx::IdxFile, labels: &idx::IdxFile| {
            Split::from_raw(images.data(), labels.data().to_vec())
        };
        Ok(FashionMnist {
            train: split(&train_images, &train_labels)?,
            test: split(&test_images, &test_labels)?,
        })
    }

    /// The four files, checked one by one and against each other.
    pub(crate) fn read(&self, verify: bool) -> Result<[Loaded; 4], DataError> {
        let files = self.read_each();
        // All errors at once would be one too many: the first in the order of the parts.
        let [train_images, train_labels, test_images, test_labels] = files;
        let files = [train_images?, train_labels?, test_images?, test_labels?];
        if verify {
            self.check_names(&files)?;
        }
        self.check_counts(&files)?;
        if verify {
            self.check_sums(&files)?;
        }
        Ok(files)
    }

    /// Reads the files at the same time.
    pub(crate) fn read_each(&self) -> [Result<Loaded, DataError>; 4] {
        std::thread::scope(|scope| {
            let files: [_; 4] = std::array::from_fn(|i| {
                scope.spawn(move || idx::read(&self.files[i], Part::ALL[i].kind()))
            });
            files.map(|file| match file.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    /// A genuine file under another name has a checksum that says what it is, which explains more than a count would.
    fn check_names(&self, files: &[Loaded; 4]) -> Result<(), DataError> {
        for ((expected, path), loaded) in Part::ALL.into_iter().zip(&self.files).zip(files) {
            let known = |part: &Part| part.sha256() == loaded.sha256;
            match Part::ALL.into_iter().find(known) {
                Some(found) if found != expected => {
                    return Err(DataError::TrainAndTestSwapped {
                        path: path.clone(),
                        expected,
                        found,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_counts(&self, files: &[Loaded; 4]) -> Result<(), DataError> {
        for pair in [[0, 1], [2, 3]] {
            let [images, labels] = pair.map(|i| files[i].file.count());
            if images != labels {
                let [images_path, labels_path] = pair.map(|i| self.files[i].clone());
                return Err(DataError::CountMismatch {
                    images_path,
                    images,
                    labels_path,
                    labels,
                });
            }
        }
        Ok(())
    }

    fn check_sums(&self, files: &[Loaded; 4]) -> Result<(), DataError> {
        for ((part, path), loaded) in Part::ALL.into_iter().zip(&self.files).zip(files) {
            check_sum(part, path, &loaded.sha256)?;
        }
        Ok(())
    }
}

/// Compares a checksum with the pinned one of `part`, and names the digit MNIST if it is that.
pub(crate) fn check_sum(part: Part, path: &Path, found: &str) -> Result<(), DataError> {
    let expected = part.sha256();
    if found == expected {
        return Ok(());
    }
    let path = path.to_path_buf();
    let found = found.to_string();
    let digit = Part::ALL
        .into_iter()
        .find(|part| part.digit_mnist_sha256() == found);
    Err(match digit {
        Some(digit) => DataError::DigitMnist {
            path,
            expected,
            found,
            digit,
        },
        None => DataError::ChecksumMismatch {
            path,
            expected,
            found,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digit_mnist_is_told_by_name_whichever_file_it_is() {
        for (part, digit) in Part::ALL.into_iter().zip(Part::ALL.into_iter().rev()) {
            let path = Path::new("some/where");
            let error = check_sum(part, path, digit.digit_mnist_sha256()).unwrap_err();
            let message = error.to_string();
            for words in [
                "some/where",
                part.sha256(),
                digit.digit_mnist_sha256(),
                digit.file_name(),
                "digit MNIST, not Fashion-MNIST",
            ] {
                assert!(message.contains(words), "{words:?} is not in: {message}");
            }
            assert!(matches!(error, DataError::DigitMnist { .. }));
            assert!(check_sum(part, path, part.sha256()).is_ok());
        }
    }
}
