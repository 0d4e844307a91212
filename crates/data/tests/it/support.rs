//! Small made-up data sets, and the real one.

use fashion_mnist::{FashionMnist, Location, Part, SearchOptions, find_or_fetch};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tempfile::TempDir;

/// An IDX file of any magic, sizes and data.
pub(crate) fn idx(magic: u32, sizes: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = magic.to_be_bytes().to_vec();
    bytes.extend(sizes.iter().flat_map(|size| size.to_be_bytes()));
    bytes.extend(data);
    bytes
}

pub(crate) fn images(count: u32) -> Vec<u8> {
    let data: Vec<u8> = (0..count * 784).map(|i| (i * 7 % 251) as u8).collect();
    idx(0x803, &[count, 28, 28], &data)
}

pub(crate) fn labels(count: u32) -> Vec<u8> {
    let data: Vec<u8> = (0..count).map(|i| (i * 3 % 10) as u8).collect();
    idx(0x801, &[count], &data)
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Writes a well-formed data set of 5 training and 3 test images into `dir`.
pub(crate) fn write_small_set(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    let files = [images(5), labels(5), images(3), labels(3)];
    for (part, bytes) in Part::ALL.into_iter().zip(files) {
        std::fs::write(dir.join(part.file_name()), bytes).unwrap();
    }
}

pub(crate) fn small_set() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_small_set(dir.path());
    dir
}

/// A search that sees nothing of this machine: every place lies in `root`.
pub(crate) fn isolated(root: &Path) -> SearchOptions {
    SearchOptions {
        explicit: None,
        environment: None,
        working_dir: root.join("work"),
        cache: Some(root.join("cache/fashion-mnist")),
        system: root.join("system"),
    }
}

/// Where the real data set lies on this machine; fetched if need be.
pub(crate) fn real_location() -> &'static Location {
    static LOCATION: OnceLock<Location> = OnceLock::new();
    LOCATION.get_or_init(|| {
        let options = SearchOptions {
            // Tests run in the crate's folder, commands in the workspace's root.
            working_dir: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.."),
            ..SearchOptions::from_environment()
        };
        find_or_fetch(&options).unwrap_or_else(|error| panic!("{error}"))
    })
}

/// The real data set.
pub(crate) fn real_data() -> &'static FashionMnist {
    static DATA: OnceLock<FashionMnist> = OnceLock::new();
    DATA.get_or_init(|| {
        real_location()
            .load()
            .unwrap_or_else(|error| panic!("{error}"))
    })
}
