//! From an image file to the pixels that the model knows.
//!
//! The training images are 28 x 28 grey, resized to 32 x 32. A file of that size takes exactly that path; another is scaled to
//! 28 x 28 first, so that it is as soft as what the model saw.

use std::path::Path;

use image::ImageReader;

use crate::errors::{Result, TrainerError};

const RAW_SIDE: usize = 28;
const SIDE: usize = 32;

/// The grey pixels of an image, 32 x 32, row-major; inverted where asked.
///
/// # Errors
/// When the file cannot be read, is neither PNG nor JPEG, or is damaged.
pub(crate) fn read_image(path: &Path, invert: bool) -> Result<Vec<u8>> {
    let bad = |what: String| TrainerError::Data(format!("{}: {what}", path.display()));
    let unreadable = |error: std::io::Error| bad(format!("cannot be read: {error}"));
    let grey = ImageReader::open(path)
        .map_err(unreadable)?
        .with_guessed_format()
        .map_err(unreadable)?
        .decode()
        .map_err(|error| bad(format!("expected a PNG or JPEG image: {error}")))?
        .into_luma8();
    let (width, height) = (grey.width() as usize, grey.height() as usize);
    let mut pixels = grey.into_raw();
    if invert {
        pixels.iter_mut().for_each(|pixel| *pixel = 255 - *pixel);
    }
    let raw = fashion_mnist::resize(&pixels, (width, height), (RAW_SIDE, RAW_SIDE))?;
    Ok(fashion_mnist::resize(
        &raw,
        (RAW_SIDE, RAW_SIDE),
        (SIDE, SIDE),
    )?)
}

/// Whether the border is bright: a photograph on a white ground, whose polarity is the opposite of the training images'.
pub(crate) fn has_bright_border(pixels: &[u8]) -> bool {
    let border = pixels.iter().enumerate().filter(|(index, _)| {
        let (row, column) = (index / SIDE, index % SIDE);
        row == 0 || column == 0 || row == SIDE - 1 || column == SIDE - 1
    });
    let (sum, count) = border.fold((0u32, 0u32), |(sum, count), (_, &pixel)| {
        (sum + u32::from(pixel), count + 1)
    });
    sum > count * 127
}

#[cfg(test)]
mod tests {
    use super::*;
    use fashion_mnist::Split;

    #[test]
    fn an_image_of_28_takes_the_training_path_to_the_bit() -> Result<()> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("i.png");
        let raw: Vec<u8> = (0..784u32).map(|i| (i * 37 % 251) as u8).collect();
        image::GrayImage::from_raw(28, 28, raw.clone())
            .expect("784 pixels")
            .save(&path)
            .expect("writable");
        let split = Split::from_raw(&raw, vec![0])?;
        assert_eq!(read_image(&path, false)?, split.images_u8());
        let inverted: Vec<u8> = raw.iter().map(|pixel| 255 - pixel).collect();
        let split = Split::from_raw(&inverted, vec![0])?;
        assert_eq!(read_image(&path, true)?, split.images_u8());
        Ok(())
    }

    #[test]
    fn any_size_and_colour_becomes_32_by_32_and_the_border_tells_polarity() -> Result<()> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("i.jpg");
        let white = image::RgbImage::from_pixel(301, 77, image::Rgb([255; 3]));
        white.save(&path).expect("writable");
        let pixels = read_image(&path, false)?;
        assert_eq!(pixels.len(), 1024);
        assert!(has_bright_border(&pixels));
        assert!(!has_bright_border(&read_image(&path, true)?));
        Ok(())
    }

    #[test]
    fn what_is_no_image_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("i.png");
        let message = |path: &Path| read_image(path, false).expect_err("refused").message();
        assert!(message(&path).contains("i.png: cannot be read"));
        std::fs::write(&path, b"no image").expect("writable");
        assert!(message(&path).contains("i.png: expected a PNG or JPEG image"));
        assert!(message(folder.path()).contains("cannot be read"));
    }
}
