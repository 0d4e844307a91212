//! Whatever the bytes, parsing ends in a value or an error, and never asks for more memory than the cap.

use crate::support::idx;
use fashion_mnist::idx::{Header, IdxFile, Kind, MAX_DATA_BYTES, read};
use proptest::prelude::*;
use std::path::Path;

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Images), Just(Kind::Labels)]
}

/// Arbitrary bytes would rarely get past the magic number, so half of the inputs have a right one.
fn files() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    let body = prop::collection::vec(any::<u8>(), 0..2000);
    (kinds(), any::<bool>(), body).prop_map(|(kind, right, body)| {
        let magic = right.then(|| kind.magic().to_be_bytes());
        (kind, magic.into_iter().flatten().chain(body).collect())
    })
}

/// Sizes around the ones that matter.
fn sizes() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        0..100u32,
        Just(28),
        Just(u32::MAX),
        85_590..85_610u32
    ]
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic((kind, bytes) in files()) {
        if let Ok(file) = IdxFile::parse(bytes.clone(), kind, Path::new("bytes")) {
            prop_assert_eq!(file.bytes(), &bytes[..]);
            prop_assert_eq!(file.data().len() + kind.header_len(), bytes.len());
        }
    }

    #[test]
    fn reading_a_file_agrees_with_parsing_its_bytes((kind, bytes) in files()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bytes");
        std::fs::write(&path, &bytes).unwrap();
        let parsed = IdxFile::parse(bytes.clone(), kind, &path);
        match (read(&path, kind), parsed) {
            (Ok(loaded), Ok(parsed)) => {
                prop_assert_eq!(loaded.sha256, crate::support::sha256(parsed.bytes()));
                prop_assert_eq!(loaded.file, parsed);
            }
            (Err(loaded), Err(parsed)) if !bytes.starts_with(&[0x1f, 0x8b]) => {
                // A file is read no further than needed, so how much there is may be unknown.
                prop_assert_eq!(std::mem::discriminant(&loaded), std::mem::discriminant(&parsed));
            }
            (Err(_), Err(_)) => {}
            (loaded, parsed) => prop_assert!(false, "{loaded:?} against {parsed:?}"),
        }
    }

    #[test]
    fn arbitrary_bytes_under_a_gzip_magic_never_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bytes.gz");
        std::fs::write(&path, [&[0x1f, 0x8b, 8, 0], &body[..]].concat()).unwrap();
        prop_assert!(read(&path, Kind::Labels).is_err());
    }

    #[test]
    fn no_header_gets_past_the_cap(kind in kinds(), sizes in [sizes(), sizes(), sizes()]) {
        if let Ok(header) = Header::parse(&idx(kind.magic(), &sizes, &[]), kind, Path::new("header")) {
            prop_assert!(header.count() > 0);
            prop_assert!(header.data_len() as u64 <= MAX_DATA_BYTES);
        }
    }
}
