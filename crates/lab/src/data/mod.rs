//! Pictures to learn from: MNIST's files where the user has them, else digits that the program draws itself.

pub mod digits;
pub mod idx;

use std::path::Path;

/// Pictures of digits with their labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Images {
    /// Height in pixels.
    pub rows: usize,
    /// Width in pixels.
    pub columns: usize,
    /// One byte a pixel, 0 paper and 255 ink, picture after picture.
    pub pixels: Vec<u8>,
    /// What each picture shows, 0 to 9.
    pub labels: Vec<u8>,
}

impl Images {
    /// How many pictures.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Pixels of one picture.
    pub fn size(&self) -> usize {
        self.rows * self.columns
    }

    /// The pixels of picture `index`.
    pub fn picture(&self, index: usize) -> &[u8] {
        &self.pixels[index * self.size()..][..self.size()]
    }

    /// Only the first `count` pictures, or all when there are fewer.
    pub fn first(mut self, count: usize) -> Self {
        let count = count.min(self.len());
        self.pixels.truncate(count * self.size());
        self.labels.truncate(count);
        self
    }
}

/// Pictures to train on and pictures to test with.
#[derive(Clone, Debug)]
pub struct Split {
    /// To learn from.
    pub train: Images,
    /// Never learnt from.
    pub test: Images,
    /// Where they come from, in words, with a checksum: part of a run's settings.
    pub source: String,
}

/// MNIST from `folder`, or drawn digits without one; the first `train` and `test` pictures of each part.
///
/// # Errors
/// Files that are missing or not what they claim to be: see [`idx::Error`].
pub fn digits(folder: Option<&Path>, train: usize, test: usize) -> Result<Split, idx::Error> {
    let (train, test, name) = match folder {
        Some(folder) => {
            let train = idx::read(folder, "train")?.first(train);
            (train, idx::read(folder, "t10k")?.first(test), "MNIST".to_owned())
        }
        None => {
            let name = format!("digits drawn from strokes (drawing {})", digits::VERSION);
            let draw = |part, count| digits::draw(part, digits::Paper::Grainy, count);
            (draw(digits::Part::Train, train), draw(digits::Part::Test, test), name)
        }
    };
    let mut sum = flate2::Crc::new();
    [&train.pixels, &train.labels, &test.pixels, &test.labels].iter().for_each(|bytes| sum.update(bytes));
    let source =
        format!("{name}, {} to train and {} to test, checksum {:08x}", train.len(), test.len(), sum.sum());
    Ok(Split { train, test, source })
}
