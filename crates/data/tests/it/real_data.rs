//! The real data set, and genuine files in the wrong place.

use crate::support::{real_data, real_location, sha256};
use fashion_mnist::{DataError, Part, load};
use std::path::Path;

#[test]
fn the_data_set_is_what_its_authors_published() {
    let data = real_data();
    for (split, len) in [(&data.train, 60_000), (&data.test, 10_000)] {
        assert_eq!(split.len(), len);
        for class in 0..10 {
            let count = split
                .labels()
                .iter()
                .filter(|label| **label == class)
                .count();
            assert_eq!(count, len / 10, "class {class}");
        }
    }
    assert_eq!(data.train.labels()[..10], [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]);
    assert_eq!(data.test.labels()[..10], [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]);
}

#[test]
fn a_description_has_every_file_with_its_checksum() {
    let location = real_location();
    for (info, (part, path)) in location
        .describe()
        .unwrap()
        .iter()
        .zip(Part::ALL.into_iter().zip(&location.files))
    {
        assert_eq!((info.part, &info.path), (part, path));
        assert_eq!(
            (info.bytes, &info.sha256[..]),
            (part.bytes(), part.sha256())
        );
        assert!(info.genuine);
        assert_eq!(info.bytes_on_disk, path.metadata().unwrap().len());
    }
    let small = crate::support::small_set();
    let options = crate::support::isolated(small.path());
    let location = fashion_mnist::find(&options.with_explicit(Some(small.path().into()))).unwrap();
    let infos = location.describe().unwrap();
    assert!(infos.iter().all(|info| !info.genuine));
    assert_eq!(infos[0].sha256, sha256(&crate::support::images(5)));
    assert_eq!(infos.map(|info| info.count), [5, 5, 3, 3]);
}

/// A folder whose four names hold the real files in another order.
fn arranged(dir: &Path, order: [Part; 4]) {
    for (name, file) in Part::ALL.into_iter().zip(order) {
        let position = Part::ALL.iter().position(|part| *part == file).unwrap();
        // A plain name: whether the file is compressed is seen in its contents.
        std::fs::copy(&real_location().files[position], dir.join(name.file_name())).unwrap();
    }
}

#[test]
fn swapped_train_and_test_files_are_told_by_checksum() {
    use Part::{TestImages, TestLabels, TrainImages, TrainLabels};
    for (order, expected, found) in [
        (
            [TestImages, TestLabels, TrainImages, TrainLabels],
            TrainImages,
            TestImages,
        ),
        (
            [TrainImages, TestLabels, TestImages, TrainLabels],
            TrainLabels,
            TestLabels,
        ),
        (
            [TrainImages, TrainLabels, TrainImages, TrainLabels],
            TestImages,
            TrainImages,
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        arranged(dir.path(), order);
        let error = load(dir.path()).unwrap_err();
        let path = dir.path().join(expected.file_name());
        assert_eq!(
            error.to_string(),
            format!(
                "{}: expected Fashion-MNIST's {expected}, found its {found} (by SHA-256); train and t10k are swapped",
                path.display()
            )
        );
        assert!(matches!(error, DataError::TrainAndTestSwapped { .. }));
    }
}

#[test]
fn one_changed_pixel_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    arranged(dir.path(), Part::ALL);
    assert_eq!(&load(dir.path()).unwrap(), real_data());

    let image_file = fashion_mnist::idx::read(&real_location().files[2], Part::TestImages.kind());
    let mut bytes = image_file.unwrap().file.into_bytes();
    bytes[5_000_000] ^= 1;
    let path = dir.path().join(Part::TestImages.file_name());
    std::fs::write(&path, bytes).unwrap();
    let error = load(dir.path()).unwrap_err();
    assert!(matches!(error, DataError::ChecksumMismatch { .. }));
    let message = error.to_string();
    assert!(message.contains(path.to_str().unwrap()), "{message}");
    assert!(message.contains(Part::TestImages.sha256()), "{message}");
}
