//! Resizing gives Pillow's bytes.

use crate::support::{real_data, sha256};
use fashion_mnist::{DataError, MAX_SIDE, Resizer, resize, resize_28_to_32, resize_all_28_to_32};

type Size = (usize, usize);

/// The high bytes of a linear congruential generator, seeded by the size.
fn pattern((width, height): Size) -> Vec<u8> {
    let mut state = (width * 1000 + height) as u32;
    (0..width * height)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

/// SHA-256 of what Pillow 11.3.0 gives:
/// `Image.frombytes("L", size, pattern).resize(size, Image.BILINEAR).tobytes()`.
const PILLOW: [(Size, Size, &str); 13] = [
    (
        (1, 1),
        (28, 28),
        "e267d4ddf99daa44f39a0730aadf8419a39566f89519ad9b61ab9cb153f2c27f",
    ),
    (
        (1, 17),
        (32, 32),
        "2a02489d09019b559abc5542386ceafb0795be75f00bf3cb00e0743e7a89ecfa",
    ),
    (
        (17, 5),
        (28, 28),
        "c34e8d598fd8f37df5f1647b6e24b7630b9e40854ad06ee7602cab45673b1f47",
    ),
    (
        (28, 28),
        (32, 32),
        "af28d0658253b4e04e5e762549a68509679349bb1f49d9a5f68569b8270f9b10",
    ),
    (
        (28, 28),
        (28, 28),
        "b1add36799e111030e7547c9674516f3e5d84d845565988f1c729ac63fca2480",
    ),
    (
        (28, 28),
        (28, 32),
        "10cc5170c45fd486f778335e45f9e04f561c66661d74eb58c62f0bb85f22f9f0",
    ),
    (
        (28, 28),
        (32, 28),
        "bbe929cfeab681af1ecc96a3726d8141441da28cb84765f6ef34999a7ee1faa5",
    ),
    (
        (29, 31),
        (28, 28),
        "641e2f1f1f6af38ad4552cf8dc0f102783ec097d9bf9b566ad656060f078e10b",
    ),
    (
        (64, 48),
        (28, 28),
        "9ecd3823c4de02a28dbd371552349035120fa22725765d045ad1cb06a2f8df66",
    ),
    (
        (300, 200),
        (32, 32),
        "0375e1f847b32fe3e82a0d8a6a2963dfc61e6890f088bf6ef0e0c1fccf64a764",
    ),
    (
        (1000, 3),
        (28, 28),
        "416c6960ca8436e6ef42f731da90cf559591b57f2f0c3e36a07ccaec5a5e1b96",
    ),
    (
        (2, 500),
        (5, 7),
        "cb3ac504e0978d3a3b99c239642b5aa1e60e8cbeebf247425a7471c54a4384c7",
    ),
    (
        (33, 1),
        (1, 1),
        "620bfdaa346b088fb49998d92f19a7eaf6bfc2fb0aee015753966da1028cb731",
    ),
];

#[test]
fn every_size_agrees_with_pillow() {
    for (input, output, expected) in PILLOW {
        let resized = resize(&pattern(input), input, output).unwrap();
        assert_eq!(resized.len(), output.0 * output.1);
        assert_eq!(sha256(&resized), expected, "{input:?} to {output:?}");
    }
}

/// The pinned checksums were taken over torchvision's output for all 70,000 images.
#[test]
fn the_whole_data_set_agrees_with_torchvision() {
    let data = real_data();
    for (images, len, expected) in [
        (
            data.train.images_u8(),
            61_440_000,
            "3d3a288ddb7257643f683513fb240cc5b02fed27700cc2d3d35ebefad0db11a4",
        ),
        (
            data.test.images_u8(),
            10_240_000,
            "1f1ea0ce7d1ace331ee9219ad0357d38ab7e127a448a67a5ac799f8bf96f8b25",
        ),
    ] {
        assert_eq!(images.len(), len);
        assert_eq!(sha256(images), expected);
    }
}

#[test]
fn the_fast_path_equals_the_general_one() {
    let resizer = Resizer::new((28, 28), (32, 32)).unwrap();
    let images = pattern((28, 28 * 17));
    let expected: Vec<u8> = images
        .chunks_exact(784)
        .flat_map(|image| resizer.resize(image).unwrap())
        .collect();
    assert_eq!(resize_all_28_to_32(&images).unwrap(), expected);
    let first: &[u8; 784] = images.first_chunk().unwrap();
    assert_eq!(resize_28_to_32(first)[..], expected[..1024]);
    assert!(resize_all_28_to_32(&[]).unwrap().is_empty());
}

#[test]
fn wrong_sizes_are_named() {
    for (input, output, argument) in [
        ((0, 1), (1, 1), "input width"),
        ((1, MAX_SIDE + 1), (1, 1), "input height"),
        ((1, 1), (0, 1), "output width"),
        ((1, 1), (1, usize::MAX), "output height"),
    ] {
        let error = Resizer::new(input, output).unwrap_err();
        assert!(matches!(error, DataError::UnsupportedImageSize { .. }));
        assert!(error.to_string().starts_with(argument), "{error}");
    }
    let error = resize(&[0; 10], (3, 4), (1, 1)).unwrap_err();
    assert_eq!(error.to_string(), "image: expected 12 elements, found 10");
    let error = resize_all_28_to_32(&[0; 785]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "images: expected 784 elements, found 785"
    );
}
