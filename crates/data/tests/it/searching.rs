//! The search keeps its order, takes every layout, and does not pass over what the user named.

use crate::support::{isolated, small_set, write_small_set};
use fashion_mnist::{DataError, Location, Part, SourceKind, find, load_unverified};
use std::path::Path;

/// Fills the places from the last to the first: each new one has to win over all before it.
#[test]
fn earlier_places_win_over_later_ones() {
    let root = tempfile::tempdir().unwrap();
    let mut options = isolated(root.path());
    let places = [
        (SourceKind::Torchvision, "work/data/FashionMNIST/raw"),
        (SourceKind::System, "system"),
        (SourceKind::Cache, "cache/fashion-mnist"),
        (SourceKind::WorkingDirectory, "work/data/fashion-mnist"),
        (SourceKind::Environment, "environment"),
        (SourceKind::Explicit, "explicit"),
    ];
    for (source, place) in places {
        let dir = root.path().join(place);
        write_small_set(&dir);
        match source {
            SourceKind::Environment => options.environment = Some(dir.clone()),
            SourceKind::Explicit => options.explicit = Some(dir.clone()),
            _ => {}
        }
        let files = Part::ALL.map(|part| dir.join(part.file_name()));
        let expected = Location { source, dir, files };
        assert_eq!(find(&options).unwrap(), expected);
    }
}

#[test]
fn every_place_is_listed_with_its_reason_when_none_has_the_data() {
    let root = tempfile::tempdir().unwrap();
    let mut options = isolated(root.path());
    let partial = root.path().join("cache/fashion-mnist");
    write_small_set(&partial);
    std::fs::remove_file(partial.join("t10k-images-idx3-ubyte")).unwrap();
    std::fs::write(root.path().join("system"), b"a file").unwrap();

    let error = find(&options).unwrap_err();
    let message = error.to_string();
    for words in [
        "--data: not given",
        "$FASHION_MNIST_DIR: not given",
        "work/data/fashion-mnist: no such directory",
        "cache/fashion-mnist: expected the four files",
        "missing: t10k-images-idx3-ubyte",
        "system: expected a directory",
        "work/data/FashionMNIST/raw: no such directory",
        "To get the data by hand",
        "apt-get install dataset-fashion-mnist",
    ] {
        assert!(message.contains(words), "{words:?} is not in: {message}");
    }
    let DataError::NotFound { searched } = error else {
        panic!("{message}");
    };
    assert_eq!(searched.len(), 6);

    options.cache = None;
    let message = find(&options).unwrap_err().to_string();
    assert!(
        message.contains("neither $XDG_CACHE_HOME nor $HOME"),
        "{message}"
    );
}

#[test]
fn a_named_directory_without_the_data_is_an_error_even_if_another_place_has_it() {
    let root = tempfile::tempdir().unwrap();
    let mut options = isolated(root.path());
    write_small_set(&root.path().join("cache/fashion-mnist"));
    let empty = root.path().join("empty");
    std::fs::create_dir(&empty).unwrap();

    options.environment = Some(empty.clone());
    let message = find(&options).unwrap_err().to_string();
    assert!(message.contains("$FASHION_MNIST_DIR"), "{message}");
    assert!(message.contains(empty.to_str().unwrap()), "{message}");
    assert!(message.contains("found 0 of them"), "{message}");

    // A typing error in --data is not hidden by a good environment either.
    options.environment = options.cache.clone();
    options.explicit = Some(root.path().join("typo"));
    let error = find(&options).unwrap_err();
    assert!(matches!(
        error,
        DataError::Given {
            given_by: "--data",
            ..
        }
    ));
    assert!(error.to_string().contains("typo"), "{error}");
}

#[test]
fn torchvisions_layout_is_found_below_a_named_directory() {
    for (named, below) in [
        ("root", "root/FashionMNIST/raw"),
        ("root/FashionMNIST", "root/FashionMNIST/raw"),
        ("root/FashionMNIST/raw", "root/FashionMNIST/raw"),
    ] {
        let root = tempfile::tempdir().unwrap();
        write_small_set(&root.path().join(below));
        let options = isolated(root.path()).with_explicit(Some(root.path().join(named)));
        let location = find(&options).unwrap();
        assert_eq!(location.dir, root.path().join(below));
        assert_eq!(location.source, SourceKind::Explicit);
        assert_eq!(
            load_unverified(&root.path().join(named))
                .unwrap()
                .train
                .len(),
            5
        );
    }
}

#[test]
fn each_file_may_be_plain_or_gzip_and_plain_is_preferred() {
    let dir = small_set();
    let compress = |name: &str| {
        let bytes = std::fs::read(dir.path().join(name)).unwrap();
        std::fs::write(
            dir.path().join(format!("{name}.gz")),
            crate::support::gzip(&bytes),
        )
        .unwrap();
    };
    let expected = load_unverified(dir.path()).unwrap();
    compress("train-images-idx3-ubyte");
    std::fs::remove_file(dir.path().join("train-images-idx3-ubyte")).unwrap();
    compress("t10k-labels-idx1-ubyte");

    let options = isolated(dir.path()).with_explicit(Some(dir.path().to_path_buf()));
    let names = find(&options).unwrap().files.map(|file| file_name(&file));
    assert_eq!(
        names,
        [
            "train-images-idx3-ubyte.gz",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        ]
    );
    assert_eq!(load_unverified(dir.path()).unwrap(), expected);
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}
