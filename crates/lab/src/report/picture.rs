//! Small pictures as PNG in base64, so that a page needs no other file.
//!
//! Ink is opacity: the page's own colours show through, in light and in dark.

use base64::Engine;

use super::model::Image;

/// A grey picture, 0 paper to 255 ink, as black ink on nothing.
pub fn ink(width: usize, pixels: &[u8], alt: &str) -> Image {
    let rgba: Vec<u8> = pixels.iter().flat_map(|&ink| [0, 0, 0, ink]).collect();
    Image { ink: true, ..encode(width, &rgba, alt) }
}

/// Signed numbers: 0 is nothing, blue above, orange below, full colour from `most` on.
pub fn signed(width: usize, values: &[f32], most: f32, alt: &str) -> Image {
    let pixel = |&value: &f32| {
        #[allow(clippy::cast_possible_truncation, reason = "clamped to a byte's range")]
        let strength = (255.0 * (value.abs() / most).clamp(0.0, 1.0)).round() as u8;
        let [r, g, b] = if value > 0.0 { [31, 111, 235] } else { [219, 109, 40] };
        [r, g, b, strength]
    };
    encode(width, &values.iter().flat_map(pixel).collect::<Vec<u8>>(), alt)
}

fn encode(width: usize, rgba: &[u8], alt: &str) -> Image {
    let size = |n: usize| u32::try_from(n).expect("a small picture");
    let (width, height) = (size(width), size(rgba.len() / 4 / width));
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, width, height);
    encoder.set_color(png::ColorType::Rgba);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(rgba));
    written.expect("writing to memory succeeds, and the sizes agree");
    let png = base64::engine::general_purpose::STANDARD.encode(png);
    Image { width, height, png, ink: false, alt: alt.to_owned(), note: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_survives_its_encoding() {
        let image = ink(2, &[0, 255, 7, 9, 1, 2], "dots");
        assert_eq!((image.width, image.height), (2, 3));
        let bytes = base64::engine::general_purpose::STANDARD.decode(image.png).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; 2 * 3 * 4];
        reader.next_frame(&mut pixels).unwrap();
        let alphas: Vec<u8> = pixels.chunks(4).map(|p| p[3]).collect();
        assert_eq!(alphas, [0, 255, 7, 9, 1, 2]);
    }
}
