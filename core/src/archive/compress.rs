//! Compression: all cores at work, the same bytes on every machine.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::Arc;

use super::blocks::{BlockCache, BlockRecord};
use super::gzip::GzipWriter;
use crate::error::{Error, ErrorKind};

/// How an archive or a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, one member, by all cores.
    Gzip {
        /// 1 (fast) to 9 (small).
        level: u32,
    },
    /// zstd, one frame with checksum, by all cores.
    Zstd {
        /// 1 (fast) to 22 (small); the levels above 9 need much memory.
        level: i32,
    },
}

impl Compression {
    /// The gzip level where none is chosen.
    pub const DEFAULT_GZIP_LEVEL: u32 = 3;
    /// The zstd level where none is chosen.
    pub const DEFAULT_ZSTD_LEVEL: i32 = 1;

    /// gzip at the default level.
    pub fn gzip() -> Self {
        Self::Gzip { level: Self::DEFAULT_GZIP_LEVEL }
    }

    /// zstd at the default level.
    pub fn zstd() -> Self {
        Self::Zstd { level: Self::DEFAULT_ZSTD_LEVEL }
    }

    /// The name of the algorithm: `none`, `gzip`, `zstd`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip { .. } => "gzip",
            Self::Zstd { .. } => "zstd",
        }
    }

    /// What it adds to the name of a file: nothing, `.gz`, `.zst`.
    pub fn extension(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip { .. } => ".gz",
            Self::Zstd { .. } => ".zst",
        }
    }

    /// The same algorithm at another level.
    ///
    /// # Errors
    /// `InvalidInput` if the algorithm has no such level.
    pub fn with_level(self, level: i32) -> Result<Self, Error> {
        match (self, level) {
            (Self::Gzip { .. }, 1..=9) => Ok(Self::Gzip { level: level.unsigned_abs() }),
            (Self::Zstd { .. }, 1..=22) => Ok(Self::Zstd { level }),
            (Self::None, _) => Err(Error::new(
                ErrorKind::InvalidInput,
                "a compression level without a compression: the algorithm is `none`",
            )),
            (Self::Gzip { .. }, _) => Err(no_level("gzip", level, 9)),
            (Self::Zstd { .. }, _) => Err(no_level("zstd", level, 22)),
        }
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self::gzip()
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Gzip { level } => write!(f, "gzip:{level}"),
            Self::Zstd { level } => write!(f, "zstd:{level}"),
        }
    }
}

impl FromStr for Compression {
    type Err = Error;

    /// Reads `none`, `gzip`, `zstd`, and the latter two with a level: `zstd:3`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level)),
            None => (text, None),
        };
        let compression = match name {
            "none" | "uncompressed" => Self::None,
            "gzip" => Self::gzip(),
            "zstd" => Self::zstd(),
            _ => {
                let message = format!("unknown compression `{text}`");
                return Err(Error::new(ErrorKind::InvalidInput, message)
                    .with_hint("known: `none`, `gzip`, `zstd`; with a level: `gzip:6`, `zstd:3`"));
            }
        };
        match level {
            None => Ok(compression),
            Some(level) => match level.parse() {
                Ok(level) => compression.with_level(level),
                Err(_) => {
                    let message = format!("the compression level `{level}` is no number");
                    Err(Error::new(ErrorKind::InvalidInput, message))
                }
            },
        }
    }
}

fn no_level(name: &str, level: i32, most: i32) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("{name} has no level {level}"))
        .with_hint(format!("its levels are 1 to {most}"))
}

/// More workers need more memory, about 1.5 MiB each for gzip and 8 MiB each for zstd; with these
/// packing stays below 64 MiB at the default levels, and zstd already outruns the disk.
const MOST_GZIP_WORKERS: usize = 16;
const MOST_ZSTD_WORKERS: usize = 4;

/// Compresses what is written to it.
///
/// The bytes depend on the input and the settings alone: not on the number of cores, nor on how
/// the input was cut into writes.
#[derive(Debug)]
pub struct Compressor<W: Write>(Inner<W>);

enum Inner<W: Write> {
    None(W),
    Gzip(GzipWriter<W>),
    Zstd(io::BufWriter<zstd::Encoder<'static, W>>),
}

impl<W: Write> Compressor<W> {
    /// Starts compressing to a writer.
    ///
    /// # Errors
    /// `InvalidInput` for a level that the algorithm does not have; no memory or threads.
    pub fn new(inner: W, compression: Compression) -> io::Result<Self> {
        Self::with_workers(inner, compression, cores(), None)
    }

    /// The same; what the cache knows of a gzip stream is not compressed again.
    ///
    /// # Errors
    /// As [`Compressor::new`].
    pub fn with_cache(inner: W, compression: Compression, cache: Arc<dyn BlockCache>) -> io::Result<Self> {
        Self::with_workers(inner, compression, cores(), Some(cache))
    }

    fn with_workers(
        inner: W,
        compression: Compression,
        workers: usize,
        cache: Option<Arc<dyn BlockCache>>,
    ) -> io::Result<Self> {
        Ok(Self(match compression {
            Compression::None => Inner::None(inner),
            Compression::Gzip { level } => {
                Inner::Gzip(GzipWriter::new(inner, level, workers.min(MOST_GZIP_WORKERS), cache)?)
            }
            Compression::Zstd { level } => {
                Inner::Zstd(zstd_writer(inner, level, workers.min(MOST_ZSTD_WORKERS))?)
            }
        }))
    }

    /// Compresses the rest and gives the writer back, not flushed.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(self) -> io::Result<W> {
        self.finish_with_blocks().map(|(inner, _)| inner)
    }

    /// The same; also tells the blocks of which a gzip stream with a cache consists. Of others there
    /// are none to tell.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish_with_blocks(self) -> io::Result<(W, Vec<BlockRecord>)> {
        let inner = match self.0 {
            Inner::None(inner) => inner,
            Inner::Gzip(writer) => return writer.finish(),
            Inner::Zstd(writer) => writer.into_inner().map_err(io::IntoInnerError::into_error)?.finish()?,
        };
        Ok((inner, Vec::new()))
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::None(inner) => inner.write(buffer),
            Inner::Gzip(writer) => writer.write(buffer),
            Inner::Zstd(writer) => writer.write(buffer),
        }
    }

    /// Passes on what is already compressed. It does not cut the stream: that would make the
    /// bytes depend on when it is called.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Inner::None(inner) => inner.flush(),
            Inner::Gzip(_) | Inner::Zstd(_) => Ok(()),
        }
    }
}

impl<W: Write> fmt::Debug for Inner<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None(_) => "none",
            Self::Gzip(_) => "gzip",
            Self::Zstd(_) => "zstd",
        })
    }
}

/// With workers zstd cuts the input into jobs of a fixed size, so the bytes do not depend on how
/// many workers there are, as long as there is one.
fn zstd_writer<W: Write>(
    inner: W,
    level: i32,
    workers: usize,
) -> io::Result<io::BufWriter<zstd::Encoder<'static, W>>> {
    use zstd::stream::raw::CParameter;

    if !(1..=22).contains(&level) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("zstd has no level {level}")));
    }
    let mut encoder = zstd::Encoder::new(inner, level)?;
    encoder.include_checksum(true)?;
    encoder.multithread(workers as u32)?;
    if let Some(bytes) = zstd_job_bytes(level) {
        encoder.set_parameter(CParameter::JobSize(bytes))?;
    }
    Ok(io::BufWriter::with_capacity(128 << 10, encoder))
}

/// How much a worker of zstd takes at a time; `None` leaves the choice to zstd, which for larger
/// windows needs far more than the 64 MiB that packing may take.
fn zstd_job_bytes(level: i32) -> Option<u32> {
    match level {
        1..=2 => Some(1 << 20),
        3..=4 => Some(2 << 20),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::Read;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::archive::{TarEntry, TarKind, TarWriter, decompress};
    use crate::digest::Digest;

    /// Text, noise, zeros and text again, over several blocks.
    fn sample() -> Vec<u8> {
        let mut state = 1_u32;
        let mut noise = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let text = |from: u32| (from..from + 30_000).flat_map(|n| format!("line {n}\n").into_bytes());
        let noise: Vec<u8> = std::iter::repeat_with(&mut noise).take(400_000).collect();
        text(0).chain(noise).chain(vec![0; 300_000]).chain(text(7)).collect()
    }

    fn compress(input: &[u8], compression: Compression, write_size: usize) -> Vec<u8> {
        let mut compressor = Compressor::new(Vec::new(), compression).expect("starts");
        for piece in input.chunks(write_size) {
            compressor.write_all(piece).expect("writes");
            compressor.flush().expect("flushes");
        }
        compressor.finish().expect("finishes")
    }

    fn restore(compressed: &[u8]) -> Vec<u8> {
        let mut restored = Vec::new();
        decompress(compressed).expect("starts").read_to_end(&mut restored).expect("reads");
        restored
    }

    #[test]
    fn everything_comes_back_and_the_cut_of_the_writes_does_not_matter() {
        let sample = sample();
        for compression in ["none", "gzip:1", "gzip", "gzip:6", "gzip:9", "zstd", "zstd:3", "zstd:9"] {
            let compression: Compression = compression.parse().expect("known");
            for input in [&sample[..], &sample[..1], &sample[..256 << 10], &[]] {
                let compressed = compress(input, compression, 100_000);
                assert!(restore(&compressed) == input, "{compression}");
                assert!(compress(input, compression, 7777) == compressed, "{compression}");
                assert!(compress(input, compression, usize::MAX) == compressed, "{compression}");
            }
        }
    }

    #[test]
    fn the_number_of_workers_does_not_matter() {
        let sample = sample().repeat(6);
        for compression in [Compression::gzip(), Compression::zstd(), Compression::Zstd { level: 9 }] {
            let compress = |workers| {
                let mut compressor =
                    Compressor::with_workers(Vec::new(), compression, workers, None).expect("starts");
                compressor.write_all(&sample).expect("writes");
                compressor.finish().expect("finishes")
            };
            let alone = compress(1);
            assert!(compress(2) == alone && compress(4) == alone, "{compression}");
        }
    }

    #[test]
    fn the_bytes_never_change() {
        let sample = sample();
        for (compression, size, digest) in [
            (
                Compression::gzip(),
                538_865,
                "bb3174566a83083e9155960576a3abe9919ed3995fcb22d2c8dc10c290cf91f9",
            ),
            (
                Compression::zstd(),
                432_201,
                "97859f6829e5cdc07278d2cd9185b74ed8675fdfea184592e1ffa47b6ccd7651",
            ),
        ] {
            let compressed = compress(&sample, compression, 4096);
            assert_eq!((compressed.len(), Digest::of(&compressed).hex().as_str()), (size, digest));
        }
    }

    #[test]
    fn gzip_is_one_member_without_time_and_name() {
        let compressed = compress(&sample(), Compression::gzip(), 4096);
        assert_eq!(compressed[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
        let mut first = Vec::new();
        flate2::read::GzDecoder::new(compressed.as_slice()).read_to_end(&mut first).expect("one member");
        assert!(first == sample());
    }

    /// Knows the blocks of one stream.
    #[derive(Debug, Default)]
    struct Known {
        stream: Vec<u8>,
        blocks: HashMap<Digest, BlockRecord>,
        given: AtomicUsize,
    }

    impl BlockCache for Known {
        fn append(&self, key: &Digest, output: &mut Vec<u8>) -> bool {
            let Some(block) = self.blocks.get(key) else { return false };
            output.extend_from_slice(&self.stream[block.offset as usize..][..block.size_bytes as usize]);
            self.given.fetch_add(1, Ordering::Relaxed);
            true
        }
    }

    fn compress_knowing(known: Known, input: &[u8]) -> (Known, usize, usize) {
        let cache = Arc::new(known);
        let mut compressor =
            Compressor::with_cache(Vec::new(), Compression::gzip(), cache.clone()).expect("starts");
        compressor.write_all(input).expect("writes");
        let (stream, blocks) = compressor.finish_with_blocks().expect("finishes");
        assert!(stream == compress(input, Compression::gzip(), 4096), "a cache changes no byte");
        assert!(
            blocks
                .iter()
                .all(|block| block.is_of(&stream[block.offset as usize..][..block.size_bytes as usize]))
        );
        let (given, count) = (cache.given.load(Ordering::Relaxed), blocks.len());
        let blocks = blocks.into_iter().map(|block| (block.key, block)).collect();
        (Known { stream, blocks, given: AtomicUsize::new(0) }, given, count)
    }

    /// A tar archive of text files, the one in the middle with this content.
    fn archive(middle: &[u8]) -> Vec<u8> {
        let text = sample();
        let mut tar = TarWriter::new(Vec::new());
        for number in 0..120_usize {
            let content = if number == 60 { middle } else { &text[number * 701..][..20_000 + number * 11] };
            let size_bytes = content.len() as u64;
            let entry = TarEntry::new(format!("file-{number}"), TarKind::File { size_bytes }, 0o644);
            tar.append_bytes(&entry, content).expect("in memory");
        }
        tar.finish().expect("in memory")
    }

    #[test]
    fn what_did_not_change_is_not_compressed_again() {
        let (known, given, count) = compress_knowing(Known::default(), &archive(b"short"));
        assert!(given == 0 && count > 8, "{given} of {count}");
        let (known, given, count) = compress_knowing(known, &archive(b"short"));
        assert_eq!(given, count);
        // All that comes after it has moved.
        let (known, given, count) = compress_knowing(known, &archive(&sample()[..5_000]));
        assert!(given * 10 >= count * 6, "{given} of {count}");
        let (_, given, _) = compress_knowing(known, &sample());
        assert_eq!(given, 0);
    }

    #[test]
    fn a_failing_writer_fails_the_compression() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for compression in [Compression::gzip(), Compression::zstd()] {
            let write = || -> io::Result<()> {
                let mut compressor = Compressor::new(Full, compression)?;
                compressor.write_all(&sample())?;
                compressor.finish().map(drop)
            };
            assert_eq!(write().expect_err("full").kind(), io::ErrorKind::StorageFull);
        }
    }

    #[test]
    fn reads_what_users_write() {
        for (text, compression) in [
            ("none", Compression::None),
            ("gzip", Compression::Gzip { level: Compression::DEFAULT_GZIP_LEVEL }),
            ("gzip:9", Compression::Gzip { level: 9 }),
            ("zstd:22", Compression::Zstd { level: 22 }),
        ] {
            assert_eq!(text.parse::<Compression>().expect(text), compression);
        }
        for text in ["", "lzma", "gzip:0", "gzip:10", "zstd:23", "zstd:", "none:1", "gzip:-1", "GZIP"] {
            assert!(text.parse::<Compression>().is_err(), "{text}");
        }
    }
}
