//! The idx format of MNIST's four files, plain or gzipped.
//!
//! Big-endian: a magic number (0x0801 for bytes in one dimension, 0x0803 in three), one 32-bit length a dimension,
//! then the bytes. Every length is checked against the bytes that are there, and nothing is allocated on a
//! header's word alone.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::Images;

const LABELS: u32 = 0x0801;
const IMAGES: u32 = 0x0803;
/// MNIST has 47 MB; a header that promises more than this is a lie or another data set.
const MOST_BYTES: usize = 1 << 30;

/// What can be wrong with a folder of idx files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither the plain nor the gzipped file is there.
    #[error("no {name} or {name}.gz in {}", folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The file's plain name.
        name: String,
    },
    /// The file can't be read, or its gzip stream is broken.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system or the decoder said.
        source: std::io::Error,
    },
    /// Not an idx file of this kind.
    #[error("{}: magic number {found:#010x}, expected {expected:#010x}", path.display())]
    Magic {
        /// The file.
        path: PathBuf,
        /// Its first four bytes.
        found: u32,
        /// What they should be.
        expected: u32,
    },
    /// The header asks for more than any file of digits holds.
    #[error("{}: its header {dimensions:?} asks for more than {MOST_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The lengths in the header.
        dimensions: Vec<usize>,
    },
    /// The file ends early.
    #[error("{}: {found} bytes of data where the header promises {expected}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that are there.
        found: usize,
        /// Bytes that the header promises.
        expected: usize,
    },
    /// The file goes on after its data.
    #[error("{}: more bytes than the {expected} that the header promises", path.display())]
    Trailing {
        /// The file.
        path: PathBuf,
        /// Bytes that the header promises.
        expected: usize,
    },
    /// Pictures and labels of different number.
    #[error("{}: {images} pictures but {labels} labels", folder.display())]
    Count {
        /// The folder.
        folder: PathBuf,
        /// Number of pictures.
        images: usize,
        /// Number of labels.
        labels: usize,
    },
    /// Pictures that are not 28 x 28, or none at all.
    #[error("{}: {count} pictures of {rows} x {columns}, expected at least one of 28 x 28", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// Number of pictures.
        count: usize,
        /// Their height.
        rows: usize,
        /// Their width.
        columns: usize,
    },
    /// A label that is no digit.
    #[error("{}: label {index} is {value}, expected 0 to 9", path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// Which label.
        index: usize,
        /// Its value.
        value: u8,
    },
}

/// Reads `PREFIX-images-idx3-ubyte` and `PREFIX-labels-idx1-ubyte`, plain or `.gz`.
///
/// # Errors
/// See [`Error`].
pub fn read(folder: &Path, prefix: &str) -> Result<Images, Error> {
    let (path, file) = open(folder, &format!("{prefix}-images-idx3-ubyte"))?;
    let (dimensions, pixels) = parse(file, IMAGES).map_err(|fault| fault.at(&path))?;
    let [count, rows, columns] = dimensions[..] else { unreachable!("the magic number says three") };
    if count == 0 || rows != 28 || columns != 28 {
        return Err(Error::Shape { path, count, rows, columns });
    }
    let (path, file) = open(folder, &format!("{prefix}-labels-idx1-ubyte"))?;
    let (_, labels) = parse(file, LABELS).map_err(|fault| fault.at(&path))?;
    if labels.len() != count {
        return Err(Error::Count { folder: folder.to_owned(), images: count, labels: labels.len() });
    }
    if let Some(index) = labels.iter().position(|&label| label > 9) {
        return Err(Error::Label { path, index, value: labels[index] });
    }
    Ok(Images { rows, columns, pixels, labels })
}

/// The plain file, or else the gzipped one, as a stream of plain bytes.
fn open(folder: &Path, name: &str) -> Result<(PathBuf, Box<dyn Read>), Error> {
    let plain = folder.join(name);
    let zipped = folder.join(format!("{name}.gz"));
    let path = if plain.exists() { plain } else { zipped };
    if !path.exists() {
        return Err(Error::Missing { folder: folder.to_owned(), name: name.to_owned() });
    }
    let file = File::open(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
    let file = BufReader::new(file);
    let stream: Box<dyn Read> = if path.extension().is_some_and(|e| e == "gz") {
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    Ok((path, stream))
}

/// An [`Error`] that does not know its file yet.
#[derive(Debug)]
enum Fault {
    Io(std::io::Error),
    Magic { found: u32, expected: u32 },
    TooLarge { dimensions: Vec<usize> },
    Truncated { found: usize, expected: usize },
    Trailing { expected: usize },
}

impl Fault {
    fn at(self, path: &Path) -> Error {
        let path = path.to_owned();
        match self {
            Self::Io(source) => Error::Io { path, source },
            Self::Magic { found, expected } => Error::Magic { path, found, expected },
            Self::TooLarge { dimensions } => Error::TooLarge { path, dimensions },
            Self::Truncated { found, expected } => Error::Truncated { path, found, expected },
            Self::Trailing { expected } => Error::Trailing { path, expected },
        }
    }
}

/// The dimensions and the data of one file. The low byte of the magic number says how many dimensions.
fn parse(mut file: impl Read, magic: u32) -> Result<(Vec<usize>, Vec<u8>), Fault> {
    let found = word(&mut file, 0)?;
    if found != magic {
        return Err(Fault::Magic { found, expected: magic });
    }
    let dimensions = (0..magic & 0xff)
        .map(|d| word(&mut file, 4 + 4 * d as usize).map(|length| length as usize))
        .collect::<Result<Vec<_>, _>>()?;
    let size =
        dimensions.iter().try_fold(1usize, |size, &d| size.checked_mul(d)).filter(|&size| size <= MOST_BYTES);
    let Some(expected) = size else { return Err(Fault::TooLarge { dimensions }) };
    let mut data = Vec::new();
    // One byte more than promised, to notice a file that goes on.
    file.take(expected as u64 + 1).read_to_end(&mut data).map_err(Fault::Io)?;
    match data.len() {
        found if found < expected => Err(Fault::Truncated { found, expected }),
        found if found > expected => Err(Fault::Trailing { expected }),
        _ => Ok((dimensions, data)),
    }
}

/// A big-endian number at byte `offset` of the header.
fn word(file: &mut impl Read, offset: usize) -> Result<u32, Fault> {
    let mut bytes = [0; 4];
    file.read_exact(&mut bytes).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Fault::Truncated { found: offset, expected: offset + 4 },
        _ => Fault::Io(error),
    })?;
    Ok(u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LABELS_OF_THREE: &[u8] = &[0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1];

    fn fault(bytes: &[u8], magic: u32) -> Fault {
        parse(bytes, magic).expect_err("the bytes are wrong")
    }

    /// A folder with `count` pictures of 28 x 28 and these labels.
    fn folder(count: u8, labels: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut images = vec![0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 28, 0, 0, 0, 28];
        images.extend(std::iter::repeat_n(9, usize::from(count) * 784));
        let mut bytes = vec![0, 0, 8, 1, 0, 0, 0, u8::try_from(labels.len()).unwrap()];
        bytes.extend(labels);
        std::fs::write(folder.path().join("train-images-idx3-ubyte"), images).unwrap();
        std::fs::write(folder.path().join("train-labels-idx1-ubyte"), bytes).unwrap();
        folder
    }

    #[test]
    fn reads_labels() {
        assert_eq!(parse(LABELS_OF_THREE, LABELS).unwrap(), (vec![3], vec![7, 2, 1]));
    }

    #[test]
    fn another_magic_number() {
        assert!(matches!(fault(LABELS_OF_THREE, IMAGES), Fault::Magic { found: 0x0801, expected: 0x0803 }));
    }

    #[test]
    fn a_file_that_ends_in_its_header() {
        assert!(matches!(fault(&LABELS_OF_THREE[..6], LABELS), Fault::Truncated { found: 4, expected: 8 }));
        assert!(matches!(fault(&[], LABELS), Fault::Truncated { found: 0, expected: 4 }));
    }

    #[test]
    fn a_file_that_ends_in_its_data() {
        assert!(matches!(fault(&LABELS_OF_THREE[..10], LABELS), Fault::Truncated { found: 2, expected: 3 }));
    }

    #[test]
    fn a_file_that_goes_on() {
        let longer = [LABELS_OF_THREE, &[0]].concat();
        assert!(matches!(fault(&longer, LABELS), Fault::Trailing { expected: 3 }));
    }

    #[test]
    fn a_header_that_lies_about_its_size() {
        let header = [&[0, 0, 8, 3][..], &[0xff; 12]].concat();
        let Fault::TooLarge { dimensions } = fault(&header, IMAGES) else { panic!("expected TooLarge") };
        assert_eq!(dimensions, vec![0xffff_ffff; 3]);
    }

    #[test]
    fn reads_a_folder_plain_and_gzipped_alike() {
        let folder = folder(2, &[3, 9]);
        let plain = read(folder.path(), "train").unwrap();
        assert_eq!((plain.len(), plain.size(), plain.picture(1)[0]), (2, 784, 9));
        for name in ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"] {
            let path = folder.path().join(name);
            let file = File::create(folder.path().join(format!("{name}.gz"))).unwrap();
            let mut zip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            zip.write_all(&std::fs::read(&path).unwrap()).unwrap();
            zip.finish().unwrap();
            std::fs::remove_file(path).unwrap();
        }
        assert_eq!(read(folder.path(), "train").unwrap(), plain);
    }

    #[test]
    fn a_gzip_stream_that_is_none() {
        let folder = folder(1, &[1]);
        std::fs::remove_file(folder.path().join("train-labels-idx1-ubyte")).unwrap();
        std::fs::write(folder.path().join("train-labels-idx1-ubyte.gz"), [7; 64]).unwrap();
        assert!(matches!(read(folder.path(), "train"), Err(Error::Io { .. })));
    }

    #[test]
    fn counts_that_differ() {
        let folder = folder(2, &[1, 2, 3]);
        assert!(matches!(read(folder.path(), "train"), Err(Error::Count { images: 2, labels: 3, .. })));
    }

    #[test]
    fn a_label_that_is_no_digit() {
        let folder = folder(2, &[1, 10]);
        assert!(matches!(read(folder.path(), "train"), Err(Error::Label { index: 1, value: 10, .. })));
    }

    #[test]
    fn pictures_of_another_shape() {
        let folder = folder(1, &[1]);
        let bytes = [0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 5, 5];
        std::fs::write(folder.path().join("train-images-idx3-ubyte"), bytes).unwrap();
        assert!(matches!(
            read(folder.path(), "train"),
            Err(Error::Shape { count: 1, rows: 1, columns: 2, .. })
        ));
    }

    #[test]
    fn a_file_that_is_not_there() {
        let folder = folder(1, &[1]);
        assert!(matches!(read(folder.path(), "t10k"), Err(Error::Missing { .. })));
    }

    /// The real thing, where a copy lies beside the checkout.
    #[test]
    fn real_mnist() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/mnist");
        if !folder.exists() {
            eprintln!("skipped: no MNIST at {}", folder.display());
            return;
        }
        let train = read(&folder, "train").unwrap();
        assert_eq!((train.len(), train.labels[0]), (60_000, 5));
        assert_eq!(read(&folder, "t10k").unwrap().len(), 10_000);
    }
}
