//! What lies at a location, file by file, for people to read.

use crate::error::DataError;
use crate::idx::Loaded;
use crate::locate::Location;
use crate::part::Part;
use std::path::PathBuf;

/// One of the four files as it lies on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Which of the four it is.
    pub part: Part,
    /// Where it is.
    pub path: PathBuf,
    /// Its size on disk.
    pub bytes_on_disk: u64,
    /// Its decompressed size; the same for a plain file.
    pub bytes: u64,
    /// Images or labels in it.
    pub count: usize,
    /// SHA-256 of its decompressed bytes, in lower-case hexadecimal.
    pub sha256: String,
    /// Whether that is the pinned checksum.
    pub genuine: bool,
}

impl Location {
    /// Reads all four files and says what they are, in the order of [`Part::ALL`]. A wrong checksum is told by
    /// [`FileInfo::genuine`], so that it can be shown.
    ///
    /// # Errors
    /// Those of [`load`](crate::load) that concern the structure of one file.
    pub fn describe(&self) -> Result<[FileInfo; 4], DataError> {
        let [a, b, c, d] = self.read_each();
        let files = [a?, b?, c?, d?];
        let info = |i: usize, loaded: &Loaded| -> Result<FileInfo, DataError> {
            let part = Part::ALL[i];
            let path = self.files[i].clone();
            let metadata =
                std::fs::metadata(&path).map_err(DataError::io(&path, "read the file"))?;
            Ok(FileInfo {
                part,
                bytes_on_disk: metadata.len(),
                bytes: loaded.file.bytes().len() as u64,
                count: loaded.file.count(),
                sha256: loaded.sha256.clone(),
                genuine: loaded.sha256 == part.sha256(),
                path,
            })
        };
        let [a, b, c, d] = &files;
        Ok([info(0, a)?, info(1, b)?, info(2, c)?, info(3, d)?])
    }
}
