//! Batches hold the right images in PyTorch's values; orders depend on seed and epoch alone.

use candle_core::{DType, Device};
use fashion_mnist::{CLASSES, DataError, NORMALIZED, PIXELS, Split, batches, shuffle};

/// Image `i` is filled with the grey `20 i`, so that it can be told in a batch.
fn split() -> Split {
    let images: Vec<u8> = (0..7).flat_map(|i| [20 * i; 784]).collect();
    Split::from_raw(&images, (0..7).collect()).unwrap()
}

/// `torch.arange(256, dtype=torch.uint8).float().div(255).sub(0.5).div(0.5)`.
#[test]
fn normalisation_is_pytorchs_in_every_bit() {
    for (v, value) in NORMALIZED.iter().enumerate() {
        let scaled = v as f32 / 255.0;
        let centred = scaled - 0.5;
        assert_eq!(value.to_bits(), (centred / 0.5).to_bits(), "{v}");
        assert!((f64::from(*value) - (v as f64 / 127.5 - 1.0)).abs() < 1e-7);
    }
    assert_eq!((NORMALIZED[0], NORMALIZED[255]), (-1.0, 1.0));
    // PyTorch's own table; multiplying by 1 / 255 instead of dividing changes some of its values.
    let bytes: Vec<u8> = NORMALIZED
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let pytorch = "d15e8ce72284446496a6de66e8a4795818530b44cd2c3dd415077364535c3c1a";
    assert_eq!(crate::support::sha256(&bytes), pytorch);
}

#[test]
fn a_batch_holds_the_images_and_labels_at_its_indices() {
    let split = split();
    let indices = [6, 0, 3, 3];
    let (images, labels) = split.batch(&indices, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(images.dims(), [4, 1, 32, 32]);
    assert_eq!(labels.dtype(), DType::U32);
    assert_eq!(labels.to_vec1::<u32>().unwrap(), indices);
    let images = images.flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
    for (image, index) in images.iter().zip(indices) {
        let value = NORMALIZED[20 * index as usize];
        assert!(image.iter().all(|pixel| *pixel == value), "image {index}");
    }
}

#[test]
fn other_dtypes_are_the_f32_values_converted() {
    let split = split();
    let batch = |dtype| split.batch(&[1, 5], dtype, &Device::Cpu).unwrap().0;
    let single = batch(DType::F32);
    for dtype in [DType::F64, DType::F16, DType::BF16] {
        let images = batch(dtype);
        assert_eq!(images.dtype(), dtype);
        let expected = single.to_dtype(dtype).unwrap();
        let bits = |tensor: &candle_core::Tensor| {
            let wide = tensor.to_dtype(DType::F64).unwrap();
            wide.flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        assert_eq!(bits(&images), bits(&expected));
    }
}

#[test]
fn an_empty_batch_is_an_empty_tensor() {
    let (images, labels) = split().batch(&[], DType::F32, &Device::Cpu).unwrap();
    assert_eq!(
        (images.dims(), labels.dims()),
        (&[0, 1, 32, 32][..], &[0][..])
    );
}

#[test]
fn wrong_arguments_are_named() {
    let split = split();
    let error = split.batch(&[0, 7], DType::F32, &Device::Cpu).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("values below 7, found 7 at position 1"),
        "{message}"
    );

    let error = split.batch(&[0], DType::U8, &Device::Cpu).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("expected a floating-point type, found u8"),
        "{message}"
    );

    for len in [0, PIXELS, 2 * PIXELS - 1, 2 * PIXELS + 1] {
        let error = split
            .normalize_into(&[0, 1], &mut vec![0.0; len])
            .unwrap_err();
        let expected = format!("output: expected 2048 elements, found {len}");
        assert_eq!(error.to_string(), expected);
    }
    let error = Split::from_raw(&[0; 784], vec![0, 1]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "images: expected 1568 elements, found 784"
    );
    let error = Split::from_raw(&[0; 784], vec![10]).unwrap_err();
    assert!(matches!(
        error,
        DataError::LabelOutOfRange {
            index: 0,
            value: 10,
            ..
        }
    ));
}

#[test]
fn a_shuffle_is_a_permutation() {
    for n in [0, 1, 2, 17, 1000] {
        let mut order = shuffle(7, 1, n);
        order.sort_unstable();
        assert_eq!(order, (0..n as u32).collect::<Vec<_>>());
    }
}

/// Written down once: a change of the generator or of the method would change every training run.
#[test]
fn the_order_for_a_seed_and_epoch_never_changes() {
    assert_eq!(shuffle(0, 1, 10), PINNED_ORDER);
}

const PINNED_ORDER: [u32; 10] = [5, 1, 8, 6, 4, 9, 2, 0, 7, 3];

#[test]
fn seed_and_epoch_do_not_stand_in_for_each_other() {
    let orders: Vec<_> = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 1 << 32), (1 << 32, 0)]
        .map(|(seed, epoch)| shuffle(seed, epoch, 100))
        .to_vec();
    for (i, order) in orders.iter().enumerate() {
        assert!(!orders[..i].contains(order), "pair {i}");
    }
}

/// Each of the 24 orders of four elements should come up 1 / 24 of the time; the bound is six standard deviations.
#[test]
fn all_orders_are_equally_likely() {
    let mut counts = std::collections::HashMap::new();
    let draws = 24_000;
    for epoch in 0..draws {
        *counts.entry(shuffle(3, epoch, 4)).or_insert(0u32) += 1;
    }
    assert_eq!(counts.len(), 24);
    for (order, count) in counts {
        assert!((i64::from(count) - 1000).abs() < 190, "{order:?}: {count}");
    }
}

#[test]
fn batches_cover_every_sample_once_and_the_last_is_smaller() {
    for (n, batch_size) in [
        (0, 5),
        (1, 5),
        (5, 5),
        (17, 5),
        (17, 100),
        (60_000, 128),
        (3, usize::MAX),
    ] {
        let ranges: Vec<_> = batches(n, batch_size).collect();
        assert_eq!(batches(n, batch_size).len(), ranges.len());
        let flat: Vec<usize> = ranges.iter().cloned().flatten().collect();
        assert_eq!(flat, (0..n).collect::<Vec<_>>());
        if let [full @ .., last] = &ranges[..] {
            assert!(full.iter().all(|range| range.len() == batch_size));
            assert!((1..=batch_size).contains(&last.len()));
        }
    }
    assert_eq!(batches(10, 0).len(), 0);
}

#[test]
fn classes_stand_in_the_order_of_their_labels() {
    assert_eq!((CLASSES[0], CLASSES[9]), ("T-shirt/top", "Ankle boot"));
}
