//! The IDX format: headers are checked before anything is allocated, and data is read through the bound they give.
//!
//! A file is the bytes 0, 0, element type (8 = u8), rank, then `rank` big-endian u32 sizes, then the elements in
//! row-major order. This data set has two kinds: images (rank 3: count, rows, columns) and labels (rank 1: count).

use crate::error::DataError;
use flate2::bufread::GzDecoder;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::Path;
use std::sync::mpsc;

/// No file of the data set has more data than this; a header that promises more is refused unread.
pub const MAX_DATA_BYTES: u64 = 64 << 20;

/// Rows and columns of an image as it lies in the file.
pub const RAW_SIDE: usize = 28;

/// Bytes handed from the reader to the hasher at a time: large enough to make the handing over free, small enough to
/// still be in the cache.
const CHUNK: usize = 256 << 10;

/// Images or labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `count` images of 28 by 28 u8 pixels.
    Images,
    /// `count` u8 labels.
    Labels,
}

impl Kind {
    /// The first four bytes, read as a big-endian number.
    pub const fn magic(self) -> u32 {
        match self {
            Kind::Images => 0x0000_0803,
            Kind::Labels => 0x0000_0801,
        }
    }

    const fn rank(self) -> usize {
        match self {
            Kind::Images => 3,
            Kind::Labels => 1,
        }
    }

    /// Bytes before the data.
    pub const fn header_len(self) -> usize {
        4 + 4 * self.rank()
    }

    const fn describe(self) -> &'static str {
        match self {
            Kind::Images => "images (magic number 0x00000803)",
            Kind::Labels => "labels (magic number 0x00000801)",
        }
    }
}

/// A header that has passed every check; its data fits [`MAX_DATA_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    kind: Kind,
    count: usize,
}

impl Header {
    /// Checks the header at the start of `bytes`; `path` is for the message.
    ///
    /// # Errors
    /// Swapped kinds, a wrong or little-endian magic, a short header, zero counts, sizes that overflow, images that are
    /// not 28 x 28, and data beyond [`MAX_DATA_BYTES`], in this order.
    pub fn parse(bytes: &[u8], kind: Kind, path: &Path) -> Result<Self, DataError> {
        let header_truncated = || DataError::HeaderTruncated {
            path: path.to_path_buf(),
            expected: kind.header_len(),
            found: bytes.len(),
        };
        let (magic, rest) = bytes.split_first_chunk().ok_or_else(header_truncated)?;
        check_magic(u32::from_be_bytes(*magic), kind, path)?;
        let sizes = rest
            .get(..4 * kind.rank())
            .ok_or_else(header_truncated)?
            .as_chunks()
            .0
            .iter()
            .map(|size| u32::from_be_bytes(*size))
            .collect::<Vec<_>>();

        if sizes.contains(&0) {
            return Err(DataError::ZeroCount {
                path: path.to_path_buf(),
                sizes,
            });
        }
        let product = sizes
            .iter()
            .try_fold(1u64, |product, size| product.checked_mul(u64::from(*size)));
        let Some(data_len) = product else {
            return Err(DataError::SizeOverflow {
                path: path.to_path_buf(),
                cap: MAX_DATA_BYTES,
                sizes,
            });
        };
        if let [_, rows, columns] = sizes[..]
            && [rows, columns] != [RAW_SIDE as u32; 2]
        {
            return Err(DataError::WrongImageSize {
                path: path.to_path_buf(),
                rows,
                columns,
            });
        }
        if data_len > MAX_DATA_BYTES {
            return Err(DataError::TooLarge {
                path: path.to_path_buf(),
                cap: MAX_DATA_BYTES,
                found: data_len,
                sizes,
            });
        }
        Ok(Header {
            kind,
            count: sizes[0] as usize,
        })
    }

    /// Images or labels in the file.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of the data after the header.
    pub fn data_len(&self) -> usize {
        match self.kind {
            Kind::Images => self.count * RAW_SIDE * RAW_SIDE,
            Kind::Labels => self.count,
        }
    }

    fn file_len(&self) -> usize {
        self.kind.header_len() + self.data_len()
    }

    /// The header as it stands in a file, for writing one of `count` images or labels.
    pub fn encode(kind: Kind, count: u32) -> Vec<u8> {
        let side = RAW_SIDE as u32;
        [kind.magic(), count, side, side]
            .iter()
            .take(1 + kind.rank())
            .flat_map(|word| word.to_be_bytes())
            .collect()
    }
}

fn check_magic(found: u32, kind: Kind, path: &Path) -> Result<(), DataError> {
    let expected = kind.magic();
    let path = path.to_path_buf();
    let other = match kind {
        Kind::Images => Kind::Labels,
        Kind::Labels => Kind::Images,
    };
    if found == expected {
        Ok(())
    } else if found == other.magic() {
        Err(DataError::ImagesAndLabelsSwapped {
            path,
            expected: kind.describe(),
            found: other.describe(),
        })
    } else if found == expected.swap_bytes() {
        Err(DataError::LittleEndianMagic {
            path,
            expected,
            found,
        })
    } else {
        Err(DataError::WrongMagic {
            path,
            expected,
            found,
        })
    }
}

/// A whole, well-formed IDX file in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct IdxFile {
    header: Header,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for IdxFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdxFile")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

impl IdxFile {
    /// Checks decompressed bytes that are already in memory; `path` is for the message.
    ///
    /// # Errors
    /// Those of [`Header::parse`], then truncated data, trailing bytes and labels above 9.
    pub fn parse(bytes: Vec<u8>, kind: Kind, path: &Path) -> Result<Self, DataError> {
        let header = Header::parse(&bytes, kind, path)?;
        check_length(header.file_len() as u64, bytes.len() as u64, path)?;
        check_labels(&header, &bytes[kind.header_len()..], path)?;
        Ok(IdxFile { header, bytes })
    }

    /// Images or labels in the file.
    pub fn count(&self) -> usize {
        self.header.count
    }

    /// The pixels or labels, without the header.
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.header.kind.header_len()..]
    }

    /// The whole decompressed file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The whole decompressed file, given up.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

fn check_length(expected: u64, found: u64, path: &Path) -> Result<(), DataError> {
    let path = path.to_path_buf();
    match found.cmp(&expected) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => Err(DataError::Truncated {
            path,
            expected,
            found,
        }),
        std::cmp::Ordering::Greater => Err(DataError::TrailingBytes {
            path,
            expected,
            found,
        }),
    }
}

fn check_labels(header: &Header, data: &[u8], path: &Path) -> Result<(), DataError> {
    match header.kind {
        Kind::Images => Ok(()),
        Kind::Labels => check_label_values(data, path),
    }
}

pub(crate) fn check_label_values(labels: &[u8], path: &Path) -> Result<(), DataError> {
    match labels.iter().position(|label| *label > 9) {
        None => Ok(()),
        Some(index) => Err(DataError::LabelOutOfRange {
            path: path.to_path_buf(),
            index,
            value: labels[index],
        }),
    }
}

/// A file as it was read, with the checksum of its decompressed bytes.
#[derive(Debug)]
pub struct Loaded {
    /// The checked contents.
    pub file: IdxFile,
    /// SHA-256 of the decompressed bytes, in lower-case hexadecimal.
    pub sha256: String,
}

/// Reads a plain or gzip IDX file, hashing on a second thread while this one reads and decompresses.
///
/// Gzip is told by its first two bytes, whatever the name; a name in `.gz` promises gzip. Memory is bounded by the
/// header's sizes, themselves at most [`MAX_DATA_BYTES`]: a gzip bomb is left after one byte too many.
///
/// # Errors
/// Paths that cannot be read as a file, gzip that is none, truncated or corrupt, and those of [`IdxFile::parse`].
pub fn read(path: &Path, kind: Kind) -> Result<Loaded, DataError> {
    let mut input = Input::open(path)?;
    let mut start = [0; 16];
    let start = &mut start[..kind.header_len()];
    let start_len = input.fill(start, 0)?;
    let header = Header::parse(&start[..start_len], kind, path)?;
    let expected = header.file_len();
    if let Some(len) = input.plain_len {
        check_length(expected as u64, len, path)?;
    }

    let mut bytes = vec![0; expected];
    let (head, body) = bytes.split_at_mut(kind.header_len());
    head.copy_from_slice(start);
    let digest = std::thread::scope(|scope| {
        let (send, receive) = mpsc::channel::<&[u8]>();
        let hasher = scope.spawn(move || {
            let mut hasher = Sha256::new();
            receive.iter().for_each(|chunk| hasher.update(chunk));
            hasher.finalize()
        });
        // The receiver lives until this sender is gone, so sending cannot fail.
        let _ = send.send(head);
        let mut done = kind.header_len();
        for chunk in body.chunks_mut(CHUNK) {
            let len = input.fill(chunk, done as u64)?;
            done += len;
            if len < chunk.len() {
                return Err(DataError::Truncated {
                    path: path.to_path_buf(),
                    expected: expected as u64,
                    found: done as u64,
                });
            }
            let _ = send.send(chunk);
        }
        drop(send);
        input.expect_end(expected as u64)?;
        match hasher.join() {
            Ok(digest) => Ok(digest),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    check_labels(&header, &bytes[kind.header_len()..], path)?;
    Ok(Loaded {
        file: IdxFile { header, bytes },
        sha256: hex(&digest),
    })
}

/// SHA-256 of `bytes` in lower-case hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file opened for reading, decompressed on the way if it is gzip.
struct Input<'a> {
    path: &'a Path,
    stream: Stream,
    /// Bytes of a file that is not compressed.
    plain_len: Option<u64>,
}

enum Stream {
    Plain(BufReader<File>),
    Gzip(Box<Members<BufReader<File>>>),
}

impl<'a> Input<'a> {
    fn open(path: &'a Path) -> Result<Self, DataError> {
        let metadata = std::fs::metadata(path).map_err(DataError::io(path, "read the file"))?;
        if metadata.is_dir() {
            return Err(DataError::IsADirectory {
                path: path.to_path_buf(),
            });
        }
        if !metadata.is_file() {
            // Opening a pipe would wait for a writer, and a device need not end.
            return Err(DataError::NotAFile {
                path: path.to_path_buf(),
                found: "a pipe, socket or device",
            });
        }
        let file = File::open(path).map_err(DataError::io(path, "open the file"))?;
        let mut reader = BufReader::with_capacity(64 << 10, file);
        let start = reader
            .fill_buf()
            .map_err(DataError::io(path, "read the file"))?;
        if start.starts_with(&GZIP_MAGIC) {
            return Ok(Input {
                path,
                stream: Stream::Gzip(Box::new(Members::new(reader))),
                plain_len: None,
            });
        }
        if path.extension().is_some_and(|extension| extension == "gz") {
            let found = match start {
                [] => "an empty file".to_string(),
                [one] => format!("the single byte {one:02x}"),
                [first, second, ..] => format!("{first:02x} {second:02x}"),
            };
            return Err(DataError::NotGzip {
                path: path.to_path_buf(),
                found,
            });
        }
        Ok(Input {
            path,
            stream: Stream::Plain(reader),
            plain_len: Some(metadata.len()),
        })
    }

    /// Fills `buffer` as far as the file reaches; `done` decompressed bytes came before.
    fn fill(&mut self, buffer: &mut [u8], done: u64) -> Result<usize, DataError> {
        let mut len = 0;
        while len < buffer.len() {
            let read = match &mut self.stream {
                Stream::Plain(reader) => reader.read(&mut buffer[len..]),
                Stream::Gzip(members) => members.read(&mut buffer[len..]),
            };
            match read {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.explain(error, done + len as u64)),
            }
        }
        Ok(len)
    }

    fn explain(&self, error: io::Error, found: u64) -> DataError {
        let path = self.path.to_path_buf();
        match (&self.stream, error.kind()) {
            (Stream::Gzip(_), ErrorKind::UnexpectedEof) => DataError::GzipTruncated { path, found },
            (Stream::Gzip(_), ErrorKind::InvalidInput | ErrorKind::InvalidData) => {
                DataError::GzipCorrupt {
                    path,
                    found,
                    detail: error.to_string(),
                }
            }
            _ => DataError::Io {
                path,
                action: "read the file",
                source: error,
            },
        }
    }

    /// Refuses anything after the `expected` bytes that were read. Reading on also makes the gzip decoder compare its
    /// checksum.
    fn expect_end(&mut self, expected: u64) -> Result<(), DataError> {
        if self.fill(&mut [0], expected)? != 0 {
            return Err(DataError::TrailingBytes {
                path: self.path.to_path_buf(),
                expected,
                found: expected + 1,
            });
        }
        match &self.stream {
            Stream::Gzip(members) if members.garbage => Err(DataError::GzipTrailingBytes {
                path: self.path.to_path_buf(),
            }),
            _ => Ok(()),
        }
    }
}

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Gzip members one after the other, as `gzip -d` reads them, remembering whether something else follows the last.
struct Members<R> {
    /// `None` once the last member has ended.
    decoder: Option<GzDecoder<R>>,
    garbage: bool,
}

impl<R: BufRead> Members<R> {
    fn new(reader: R) -> Self {
        Members {
            decoder: Some(GzDecoder::new(reader)),
            garbage: false,
        }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            let len = decoder.read(buffer)?;
            if len > 0 || buffer.is_empty() {
                return Ok(len);
            }
            let rest = decoder.get_mut().fill_buf()?;
            let another = rest.starts_with(&GZIP_MAGIC);
            self.garbage = !another && !rest.is_empty();
            let ended = self.decoder.take();
            if another {
                self.decoder = ended.map(|decoder| GzDecoder::new(decoder.into_inner()));
            }
        }
        Ok(0)
    }
}
