//! A made-up data set that a few steps learn something of.

use fashion_mnist::{FashionMnist, Split};

/// The pixels of `n` images of 28 x 28 and their labels. Classes differ in where the image is bright, so that a few steps teach
/// something.
pub(crate) fn small_images(n: usize, salt: usize) -> (Vec<u8>, Vec<u8>) {
    let labels: Vec<u8> = (0..n).map(|i| (i * 7 % 10) as u8).collect();
    let images = (0..n * 784)
        .map(|at| {
            let (image, pixel) = (at / 784, at % 784);
            let bright = pixel / 79 == usize::from(labels[image]);
            (at * 31 + salt) as u8 / 4 + if bright { 150 } else { 0 }
        })
        .collect();
    (images, labels)
}

/// `train` and `test` of these images.
pub(crate) fn small_data(train: usize, test: usize) -> FashionMnist {
    let split = |n: usize, salt: usize| {
        let (images, labels) = small_images(n, salt);
        Split::from_raw(&images, labels).expect("well-formed")
    };
    FashionMnist {
        train: split(train, 1),
        test: split(test, 2),
    }
}
