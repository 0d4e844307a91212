//! Each malformed input has its own error, which names the path, what was expected and what was found.

use crate::support::{gzip, idx, images, labels, small_set};
use fashion_mnist::{DataError, Part, load, load_unverified};
use std::path::Path;
use tempfile::TempDir;

const IMAGES: &str = "train-images-idx3-ubyte";
const LABELS: &str = "train-labels-idx1-ubyte";

/// A small data set with one file replaced, and the error that loading it gives.
fn error_with(name: &str, bytes: &[u8]) -> DataError {
    let dir = small_set();
    let plain = dir.path().join(name.trim_end_matches(".gz"));
    std::fs::remove_file(plain).unwrap();
    std::fs::write(dir.path().join(name), bytes).unwrap();
    error_of(dir.path(), name)
}

fn error_of(dir: &Path, name: &str) -> DataError {
    let error = load_unverified(dir).unwrap_err();
    let path = dir.join(name).display().to_string();
    assert!(error.to_string().starts_with(&path), "{error}");
    error
}

/// Asserts the variant and that the message has all of `words`.
macro_rules! assert_error {
    ($error:expr, $pattern:pat $(if $guard:expr)?, $($word:expr),+ $(,)?) => {{
        let error = $error;
        assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}");
        let message = error.to_string();
        $(assert!(message.contains($word), "{:?} is not in: {message}", $word);)+
    }};
}

#[test]
fn a_well_formed_small_set_loads_plain_or_gzip_under_either_name() {
    let dir = small_set();
    let data = load_unverified(dir.path()).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (5, 3));

    // Gzip under a plain name is fine, and so are several members in one file.
    let file = images(5);
    let (head, tail) = file.split_at(1000);
    let members = [gzip(head), gzip(tail)].concat();
    for (name, bytes) in [
        (IMAGES.to_string(), gzip(&file)),
        (format!("{IMAGES}.gz"), gzip(&file)),
        (format!("{IMAGES}.gz"), members),
    ] {
        std::fs::remove_file(dir.path().join(IMAGES)).ok();
        std::fs::write(dir.path().join(name), bytes).unwrap();
        assert_eq!(load_unverified(dir.path()).unwrap(), data);
    }
}

#[test]
fn a_file_shorter_than_its_header_is_named_so() {
    for len in [0, 1, 3, 4, 7, 15] {
        let found = format!("found only {len} bytes");
        assert_error!(
            error_with(IMAGES, &images(5)[..len]),
            DataError::HeaderTruncated { expected: 16, found, .. } if *found == len,
            "header of 16 bytes",
            &found,
        );
    }
    assert_error!(
        error_with(LABELS, &labels(5)[..7]),
        DataError::HeaderTruncated {
            expected: 8,
            found: 7,
            ..
        },
        "header of 8 bytes"
    );
}

#[test]
fn truncated_data_is_refused() {
    let file = images(5);
    for len in [16, 17, file.len() - 1] {
        for (name, bytes) in [
            (IMAGES, file[..len].to_vec()),
            ("train-images-idx3-ubyte.gz", gzip(&file[..len])),
        ] {
            let found = format!("found only {len}");
            assert_error!(
                error_with(name, &bytes),
                DataError::Truncated { expected: 3936, found, .. } if *found == len as u64,
                "expected 3936 bytes",
                &found,
            );
        }
    }
}

#[test]
fn trailing_bytes_are_refused() {
    let mut file = labels(5);
    file.push(0);
    for (name, bytes) in [
        (LABELS, file.clone()),
        ("train-labels-idx1-ubyte.gz", gzip(&file)),
    ] {
        assert_error!(
            error_with(name, &bytes),
            DataError::TrailingBytes {
                expected: 13,
                found: 14,
                ..
            },
            "expected 13 bytes",
            "found at least 14",
        );
    }
}

#[test]
fn bytes_after_the_gzip_stream_are_refused() {
    let mut bytes = gzip(&labels(5));
    bytes.extend(b"junk");
    assert_error!(
        error_with("train-labels-idx1-ubyte.gz", &bytes),
        DataError::GzipTrailingBytes { .. },
        "expected the end of the file",
        "not gzip"
    );
}

#[test]
fn a_gzip_stream_cut_anywhere_is_truncated() {
    let bytes = gzip(&labels(200));
    for len in 2..bytes.len() {
        assert_error!(
            error_with("train-labels-idx1-ubyte.gz", &bytes[..len]),
            DataError::GzipTruncated { .. },
            "expected a complete gzip stream",
            "breaks off",
        );
    }
}

#[test]
fn a_corrupt_gzip_stream_is_refused() {
    let good = gzip(&labels(5));
    let checksum = good.len() - 8;
    for (position, value) in [(2, 99), (10, 0xff), (checksum, good[checksum] ^ 1)] {
        let mut bytes = good.clone();
        bytes[position] = value;
        assert_error!(
            error_with("train-labels-idx1-ubyte.gz", &bytes),
            DataError::GzipCorrupt { .. },
            "expected a valid gzip stream",
            "corrupt",
        );
    }
}

#[test]
fn something_else_under_a_gz_name_is_not_gzip() {
    let name = "train-images-idx3-ubyte.gz";
    for (bytes, found) in [
        (images(5), "found 00 00"),
        (b"<html>not found</html>".to_vec(), "found 3c 68"),
        (vec![0x1f], "the single byte 1f"),
        (vec![], "found an empty file"),
    ] {
        assert_error!(
            error_with(name, &bytes),
            DataError::NotGzip { .. },
            "1f 8b",
            found
        );
    }
}

#[test]
fn a_wrong_magic_is_shown_beside_the_right_one() {
    for magic in [0x0000_0802, 0x0000_0903, 0x0100_0803, 0x504b_0304] {
        let found = format!("found {magic:#010x}");
        assert_error!(
            error_with(IMAGES, &idx(magic, &[1, 28, 28], &[0; 784])),
            DataError::WrongMagic { .. },
            "expected the magic number 0x00000803",
            &found,
        );
    }
}

#[test]
fn a_little_endian_magic_is_named_so() {
    let mut file = 0x803u32.to_le_bytes().to_vec();
    file.extend([1u32, 28, 28].iter().flat_map(|size| size.to_le_bytes()));
    file.extend([0; 784]);
    assert_error!(
        error_with(IMAGES, &file),
        DataError::LittleEndianMagic { .. },
        "big-endian",
        "0x00000803",
        "little-endian",
        "0x03080000",
    );
}

#[test]
fn swapped_images_and_labels_are_named_so() {
    for (name, bytes, expected, found) in [
        (IMAGES, labels(5), "expected images", "found labels"),
        (LABELS, images(5), "expected labels", "found images"),
    ] {
        assert_error!(
            error_with(name, &bytes),
            DataError::ImagesAndLabelsSwapped { .. },
            expected,
            found,
            "swapped",
        );
    }
}

#[test]
fn sizes_are_checked_before_anything_is_allocated() {
    const MAX: u32 = u32::MAX;
    assert_error!(
        error_with(IMAGES, &idx(0x803, &[MAX, MAX, MAX], &[])),
        DataError::SizeOverflow { .. },
        "expected at most 67108864 bytes",
        "4294967295 x 4294967295 x 4294967295",
        "overflows",
    );
    // One image more than the cap holds, and far more.
    for count in [85_599, MAX] {
        let found = format!("make {}", u64::from(count) * 784);
        assert_error!(
            error_with(IMAGES, &idx(0x803, &[count, 28, 28], &[])),
            DataError::TooLarge { .. },
            "expected at most 67108864 bytes",
            &found,
        );
    }
    assert_error!(
        error_with(LABELS, &idx(0x801, &[MAX], &[])),
        DataError::TooLarge { .. },
        "67108864",
        "4294967295"
    );
    // The largest that fits is only short of data.
    assert_error!(
        error_with(IMAGES, &idx(0x803, &[85_598, 28, 28], &[])),
        DataError::Truncated { .. },
        "expected 67108848 bytes",
        "found only 16"
    );
}

#[test]
fn zero_counts_are_refused() {
    for sizes in [[0, 28, 28], [5, 0, 28], [5, 28, 0], [u32::MAX, u32::MAX, 0]] {
        let text = sizes.map(|size| size.to_string()).join(" x ");
        assert_error!(
            error_with(IMAGES, &idx(0x803, &sizes, &[])),
            DataError::ZeroCount { .. },
            "expected at least one",
            "found a count of 0",
            &text,
        );
    }
    assert_error!(
        error_with(LABELS, &idx(0x801, &[0], &[])),
        DataError::ZeroCount { .. },
        "count of 0"
    );
}

#[test]
fn images_other_than_28_by_28_are_refused() {
    for (rows, columns) in [(27, 28), (28, 29), (32, 32), (784, 1), (1, 784)] {
        let found = format!("found {rows} rows and {columns} columns");
        let data = vec![0; (rows * columns) as usize];
        assert_error!(
            error_with(IMAGES, &idx(0x803, &[1, rows, columns], &data)),
            DataError::WrongImageSize { .. },
            "28 rows and 28 columns",
            &found,
        );
    }
}

#[test]
fn a_count_that_differs_between_images_and_labels_is_refused() {
    assert_error!(
        error_with(LABELS, &labels(4)),
        DataError::CountMismatch {
            images: 5,
            labels: 4,
            ..
        },
        "expected 5 labels",
        IMAGES,
        "found 4",
    );
    // The same in the test half, told with its own files.
    let dir = small_set();
    std::fs::write(dir.path().join("t10k-labels-idx1-ubyte"), labels(9)).unwrap();
    assert_error!(
        error_of(dir.path(), "t10k-labels-idx1-ubyte"),
        DataError::CountMismatch {
            images: 3,
            labels: 9,
            ..
        },
        "t10k-images-idx3-ubyte"
    );
}

#[test]
fn a_label_above_nine_is_named_with_index_and_value() {
    for value in [10, 255] {
        let mut file = labels(5);
        file[8 + 3] = value;
        let found = format!("found {value} at index 3");
        assert_error!(
            error_with(LABELS, &file),
            DataError::LabelOutOfRange { index: 3, .. },
            "labels 0 to 9",
            &found,
        );
    }
}

/// 512 MiB of zeros in half a megabyte, behind a header that promises five labels.
#[test]
fn a_gzip_bomb_is_left_after_one_byte_too_many() {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&labels(5)).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..512 {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert_error!(
        error_with("train-labels-idx1-ubyte.gz", &bomb),
        DataError::TrailingBytes {
            expected: 13,
            found: 14,
            ..
        },
        "found at least 14"
    );
}

#[test]
fn a_directory_in_place_of_a_file_is_refused() {
    let dir = small_set();
    std::fs::remove_file(dir.path().join(IMAGES)).unwrap();
    std::fs::create_dir(dir.path().join(IMAGES)).unwrap();
    assert_error!(
        error_of(dir.path(), IMAGES),
        DataError::IsADirectory { .. },
        "expected a file",
        "found a directory",
    );
}

/// Reading a socket or pipe could wait for ever.
#[cfg(unix)]
#[test]
fn a_socket_in_place_of_a_file_is_refused() {
    let dir = small_set();
    std::fs::remove_file(dir.path().join(IMAGES)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join(IMAGES)).unwrap();
    assert_error!(
        error_of(dir.path(), IMAGES),
        DataError::NotAFile { .. },
        "expected a regular file",
        "found a pipe, socket or device",
    );
}

/// A link that points to itself cannot be read by anybody, root included.
#[cfg(unix)]
#[test]
fn an_unreadable_path_gives_the_systems_reason() {
    let dir = small_set();
    std::fs::remove_file(dir.path().join(IMAGES)).unwrap();
    std::os::unix::fs::symlink(IMAGES, dir.path().join(IMAGES)).unwrap();
    assert_error!(
        error_of(dir.path(), IMAGES),
        DataError::Io { .. },
        "cannot look for the file",
        "symbolic link"
    );
}

#[test]
fn a_partial_download_names_the_missing_files() {
    let dir = small_set();
    std::fs::remove_file(dir.path().join(LABELS)).unwrap();
    std::fs::write(dir.path().join("train-labels-idx1-ubyte.gz.part"), b"x").unwrap();
    assert_error!(
        load_unverified(dir.path()).unwrap_err(),
        DataError::MissingFiles { found: 3, .. },
        dir.path().to_str().unwrap(),
        "expected the four files",
        "found 3",
        LABELS,
    );
}

#[test]
fn a_path_that_is_no_directory_is_refused() {
    let dir = small_set();
    assert_error!(
        load(&dir.path().join(IMAGES)).unwrap_err(),
        DataError::NotADirectory { .. },
        IMAGES,
        "expected a directory",
    );
    assert_error!(
        load(&dir.path().join("absent")).unwrap_err(),
        DataError::DirectoryNotFound { .. },
        "absent",
        "found nothing",
    );
}

#[test]
fn well_formed_files_of_another_data_set_are_refused_by_checksum() {
    let dir: TempDir = small_set();
    let path = dir.path().join(IMAGES).display().to_string();
    let found = format!("found {}", crate::support::sha256(&images(5)));
    assert_error!(
        load(dir.path()).unwrap_err(),
        DataError::ChecksumMismatch { .. },
        &path,
        Part::TrainImages.sha256(),
        &found,
        "not Fashion-MNIST",
    );
}
