//! Everything that can go wrong between a folder name and a batch, one variant a cause.

use crate::part::Part;
use std::path::PathBuf;
use std::time::Duration;

/// Why the data set could not be found, fetched, read or used.
///
/// Each message names the path, what was expected there and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A directory was named on the command line or in the environment, and is of no use.
    #[error("{given_by} names a directory that does not hold the data set: {source}")]
    Given {
        /// `--data` or `$FASHION_MNIST_DIR`.
        given_by: &'static str,
        /// What is wrong with the directory.
        source: Box<DataError>,
    },
    /// No such directory.
    #[error("{}: expected a directory with the four files of Fashion-MNIST, found nothing there", path.display())]
    DirectoryNotFound {
        /// The directory looked for.
        path: PathBuf,
    },
    /// A file or the like where a directory was expected.
    #[error("{}: expected a directory with the four files of Fashion-MNIST, found something that is not a directory", path.display())]
    NotADirectory {
        /// The path looked at.
        path: PathBuf,
    },
    /// A directory that lacks one or more of the four files, such as one left by a partial download.
    #[error("{}: expected the four files of Fashion-MNIST (each with or without .gz), found {found} of them; missing: {}", path.display(), list(missing))]
    MissingFiles {
        /// The directory looked at.
        path: PathBuf,
        /// How many of the four are there.
        found: usize,
        /// The ones that are not.
        missing: Vec<Part>,
    },
    /// The data set is in none of the usual places.
    #[error(
        "Fashion-MNIST was not found. Places tried:{}\n{}",
        places(searched),
        BY_HAND
    )]
    NotFound {
        /// Every place with the reason why it did not serve, in the order of the search.
        searched: Vec<Attempt>,
    },
    /// The data set is in none of the usual places, and no source could deliver it.
    #[error(
        "Fashion-MNIST was not found and could not be fetched. Places tried:{}\nSources tried:{}\n{}",
        places(searched),
        places(fetched),
        BY_HAND
    )]
    Unavailable {
        /// Every place searched with the reason why it did not serve.
        searched: Vec<Attempt>,
        /// Every source asked with the reason why it did not deliver.
        fetched: Vec<Attempt>,
    },
    /// Neither `$XDG_CACHE_HOME` nor `$HOME` says where to keep a fetched copy.
    #[error(
        "no cache directory: expected an absolute path in $XDG_CACHE_HOME or $HOME, found neither; set one of them, or name a directory with the data by --data"
    )]
    NoCacheDirectory,

    /// A path cannot be read, written or created.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The path worked on.
        path: PathBuf,
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A directory where a file was expected.
    #[error("{}: expected a file, found a directory", path.display())]
    IsADirectory {
        /// The path looked at.
        path: PathBuf,
    },
    /// A pipe, a device or the like where a file was expected.
    #[error("{}: expected a regular file, found {found}", path.display())]
    NotAFile {
        /// The path looked at.
        path: PathBuf,
        /// The kind of thing found.
        found: &'static str,
    },

    /// A file called `.gz` that is not gzip.
    #[error("{}: expected gzip (a file that starts with the bytes 1f 8b), found {found}; rename the file if it is not compressed", path.display())]
    NotGzip {
        /// The file.
        path: PathBuf,
        /// Its first bytes in words.
        found: String,
    },
    /// A gzip stream that ends too early, as after a broken download.
    #[error("{}: expected a complete gzip stream, found one that breaks off after {found} decompressed bytes; fetch the file again", path.display())]
    GzipTruncated {
        /// The file.
        path: PathBuf,
        /// Decompressed bytes before the end.
        found: u64,
    },
    /// A gzip stream that contradicts itself.
    #[error("{}: expected a valid gzip stream, found a corrupt one after {found} decompressed bytes ({detail}); fetch the file again", path.display())]
    GzipCorrupt {
        /// The file.
        path: PathBuf,
        /// Decompressed bytes before the fault.
        found: u64,
        /// The decoder's words.
        detail: String,
    },
    /// Bytes after the end of a gzip stream that are not another one.
    #[error("{}: expected the end of the file after the gzip stream, found bytes that are not gzip", path.display())]
    GzipTrailingBytes {
        /// The file.
        path: PathBuf,
    },

    /// A file shorter than the header of its kind.
    #[error("{}: expected a header of {expected} bytes, found only {found} bytes in all", path.display())]
    HeaderTruncated {
        /// The file.
        path: PathBuf,
        /// Bytes of the header.
        expected: usize,
        /// Bytes of the file.
        found: usize,
    },
    /// The first four bytes are of no known meaning.
    #[error("{}: expected the magic number {expected:#010x}, found {found:#010x}; this is not the IDX file it should be", path.display())]
    WrongMagic {
        /// The file.
        path: PathBuf,
        /// The magic number of the file's kind.
        expected: u32,
        /// The one it starts with.
        found: u32,
    },
    /// The magic number is right, its bytes are in the wrong order.
    #[error("{}: expected the big-endian magic number {expected:#010x}, found it in little-endian order ({found:#010x}); IDX is big-endian", path.display())]
    LittleEndianMagic {
        /// The file.
        path: PathBuf,
        /// The magic number of the file's kind.
        expected: u32,
        /// The one it starts with, read as big-endian.
        found: u32,
    },
    /// Labels under an image file's name, or images under a label file's.
    #[error("{}: expected {expected}, found {found}; images and labels are swapped", path.display())]
    ImagesAndLabelsSwapped {
        /// The file.
        path: PathBuf,
        /// What the name promises, with its magic number.
        expected: &'static str,
        /// What the magic number says.
        found: &'static str,
    },
    /// A size in the header is 0.
    #[error("{}: expected at least one of everything, found a count of 0 in the header's sizes {}", path.display(), sizes_text(sizes))]
    ZeroCount {
        /// The file.
        path: PathBuf,
        /// The header's sizes.
        sizes: Vec<u32>,
    },
    /// The product of the header's sizes does not fit 64 bits.
    #[error("{}: expected at most {cap} bytes of data, found sizes {} whose product overflows", path.display(), sizes_text(sizes))]
    SizeOverflow {
        /// The file.
        path: PathBuf,
        /// The cap.
        cap: u64,
        /// The header's sizes.
        sizes: Vec<u32>,
    },
    /// The header promises more than any file of this data set holds.
    #[error("{}: expected at most {cap} bytes of data, found sizes {} that make {found}", path.display(), sizes_text(sizes))]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The cap.
        cap: u64,
        /// The product of the sizes.
        found: u64,
        /// The header's sizes.
        sizes: Vec<u32>,
    },
    /// Images that are not 28 rows of 28 columns.
    #[error("{}: expected images of 28 rows and 28 columns, found {rows} rows and {columns} columns", path.display())]
    WrongImageSize {
        /// The file.
        path: PathBuf,
        /// Rows in the header.
        rows: u32,
        /// Columns in the header.
        columns: u32,
    },
    /// Fewer bytes than the header promises.
    #[error("{}: expected {expected} bytes by the header's sizes, found only {found}; the file is truncated", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes of header and data together.
        expected: u64,
        /// Bytes there are, decompressed.
        found: u64,
    },
    /// More bytes than the header promises. Of a gzip stream no more than one byte is read to find out.
    #[error("{}: expected {expected} bytes by the header's sizes, found at least {found}; there are trailing bytes", path.display())]
    TrailingBytes {
        /// The file.
        path: PathBuf,
        /// Bytes of header and data together.
        expected: u64,
        /// Bytes there are at least, decompressed.
        found: u64,
    },
    /// A label that names no class.
    #[error("{}: expected labels 0 to 9, found {value} at index {index}", path.display())]
    LabelOutOfRange {
        /// The file, or `labels` for labels given from memory.
        path: PathBuf,
        /// Position of the label, from 0.
        index: usize,
        /// The label.
        value: u8,
    },
    /// Another number of labels than of images.
    #[error("{}: expected {images} labels, one for each image of {}, found {labels}", labels_path.display(), images_path.display())]
    CountMismatch {
        /// The image file.
        images_path: PathBuf,
        /// Images in it.
        images: usize,
        /// The label file.
        labels_path: PathBuf,
        /// Labels in it.
        labels: usize,
    },
    /// A genuine file of the data set under another one's name: train in place of t10k, or the other way round.
    #[error("{}: expected Fashion-MNIST's {expected}, found its {found} (by SHA-256); train and t10k are swapped", path.display())]
    TrainAndTestSwapped {
        /// The file.
        path: PathBuf,
        /// The file that belongs there.
        expected: Part,
        /// The file that is there.
        found: Part,
    },
    /// The digit MNIST, which only its checksum tells from Fashion-MNIST.
    #[error("{}: expected SHA-256 {expected}, found {found}: this is {digit} of the digit MNIST, not Fashion-MNIST", path.display())]
    DigitMnist {
        /// The file.
        path: PathBuf,
        /// Pinned checksum.
        expected: &'static str,
        /// Checksum of what is there.
        found: String,
        /// The digit file it is.
        digit: Part,
    },
    /// Well-formed, and not Fashion-MNIST.
    #[error("{}: expected SHA-256 {expected}, found {found}: this is not Fashion-MNIST (perhaps another data set of the MNIST family, or a damaged copy)", path.display())]
    ChecksumMismatch {
        /// The file.
        path: PathBuf,
        /// Pinned checksum of the decompressed file.
        expected: &'static str,
        /// Checksum of what is there.
        found: String,
    },

    /// A program that a source needs is not installed.
    #[error("{program}: expected this program in the search path, found it in none of its folders")]
    ProgramNotFound {
        /// The program's name.
        program: &'static str,
    },
    /// A program ran and failed.
    #[error("`{command}` failed ({status}): {output}")]
    ProgramFailed {
        /// The command line.
        command: String,
        /// The exit status in words.
        status: String,
        /// The end of what it wrote.
        output: String,
    },
    /// A source did not answer within its bound and was given up.
    #[error("{what} took longer than {} s and was given up", limit.as_secs_f64())]
    TimedOut {
        /// What was waited for.
        what: String,
        /// The bound.
        limit: Duration,
    },
    /// The hub's host does not accept a connection.
    #[error("{endpoint}: no connection: {reason}")]
    HubUnreachable {
        /// The endpoint, or the proxy on the way to it.
        endpoint: String,
        /// The operating system's words.
        reason: String,
    },
    /// The hub answered, and no data came of it.
    #[error("the hub's copy could not be had: {reason}")]
    HubFailed {
        /// candle-datasets' words.
        reason: String,
    },

    /// A slice or an image of the wrong length.
    #[error("{argument}: expected {expected} elements, found {found}")]
    WrongLength {
        /// The argument.
        argument: &'static str,
        /// The length it should have.
        expected: usize,
        /// The length it has.
        found: usize,
    },
    /// An index that points past the end of the split.
    #[error("indices: expected values below {len}, found {index} at position {position}")]
    IndexOutOfRange {
        /// Position in the list of indices.
        position: usize,
        /// The index.
        index: u32,
        /// Images in the split.
        len: usize,
    },
    /// A width or height that no image can have here.
    #[error("{argument}: expected 1 to {cap} pixels, found {found}")]
    UnsupportedImageSize {
        /// The argument.
        argument: &'static str,
        /// The largest size taken.
        cap: usize,
        /// The size given.
        found: usize,
    },
    /// A dtype that cannot hold values between -1 and 1.
    #[error("dtype: expected a floating-point type, found {}", found.as_str())]
    UnsupportedDType {
        /// The dtype asked for.
        found: candle_core::DType,
    },
}

impl DataError {
    pub(crate) fn io(
        path: &std::path::Path,
        action: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| DataError::Io {
            path,
            action,
            source,
        }
    }
}

impl From<DataError> for candle_core::Error {
    fn from(error: DataError) -> Self {
        candle_core::Error::wrap(error)
    }
}

/// A place searched or a source asked, and why it did not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What was tried.
    pub what: String,
    /// Why it did not serve.
    pub reason: String,
}

/// What to do when nothing could be found or fetched.
const BY_HAND: &str = "To get the data by hand, put train-images-idx3-ubyte, train-labels-idx1-ubyte, \
t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte (each with or without .gz) into ./data/fashion-mnist, or into any \
directory that --data or FASHION_MNIST_DIR names. On Debian or Ubuntu: `apt-get install dataset-fashion-mnist`. \
With Python: `torchvision.datasets.FashionMNIST(\"data\", download=True)`. \
Upstream: the folder data/fashion of github.com/zalandoresearch/fashion-mnist.";

fn list(parts: &[Part]) -> String {
    let names: Vec<_> = parts.iter().map(|part| part.file_name()).collect();
    names.join(", ")
}

fn places(attempts: &[Attempt]) -> String {
    attempts
        .iter()
        .map(|attempt| format!("\n  - {}: {}", attempt.what, attempt.reason))
        .collect()
}

fn sizes_text(sizes: &[u32]) -> String {
    let sizes: Vec<_> = sizes.iter().map(u32::to_string).collect();
    sizes.join(" x ")
}
