//! Decompression of whatever comes: the first bytes say what it is.

use std::io::{self, BufRead, BufReader, Read};

use liblzma::stream::{CONCATENATED, Stream};

/// What undoing xz may take: that of `xz -9` takes 65 MiB. A stream that asks for more is refused.
const XZ_MEMORY_BYTES: u64 = 256 << 20;

/// What the first bytes of a stream say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// No compression that we know.
    Plain,
    /// gzip (RFC 1952).
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// zstd (RFC 8878), also after a skippable frame.
    Zstd,
}

impl Format {
    /// How many bytes [`Format::detect`] wants to see.
    pub const MAGIC_BYTES: usize = 6;

    /// Recognises a stream by its first bytes; too few of them are [`Format::Plain`].
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// Undoes the compression of a stream, whichever it has; a stream without one is passed through.
/// Streams of several members or frames are read to their end.
///
/// # Errors
/// Those of reading. Damage shows while the result is read, as `InvalidData`, `InvalidInput` or
/// `UnexpectedEof`.
pub fn decompress<'a>(mut reader: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut start = Vec::with_capacity(Format::MAGIC_BYTES);
    reader.by_ref().take(Format::MAGIC_BYTES as u64).read_to_end(&mut start)?;
    let format = Format::detect(&start);
    let whole = BufReader::with_capacity(128 << 10, io::Cursor::new(start).chain(reader));
    decompress_as(format, whole)
}

/// Undoes one compression.
///
/// # Errors
/// As [`decompress`].
pub fn decompress_as<'a>(
    format: Format,
    reader: impl BufRead + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match format {
        Format::Plain => Box::new(reader),
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
        Format::Xz => Box::new(xz(reader)?),
        Format::Zstd => Box::new(zstd::Decoder::with_buffer(reader)?),
    })
}

fn xz<R: BufRead>(reader: R) -> io::Result<liblzma::bufread::XzDecoder<R>> {
    let stream = Stream::new_stream_decoder(XZ_MEMORY_BYTES, CONCATENATED)?;
    Ok(liblzma::bufread::XzDecoder::new_stream(reader, stream))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn restore(stream: &[u8]) -> io::Result<Vec<u8>> {
        let mut restored = Vec::new();
        decompress(stream)?.read_to_end(&mut restored)?;
        Ok(restored)
    }

    fn all_formats(input: &[u8]) -> Vec<(Format, Vec<u8>)> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(input).expect("writes");
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(input).expect("writes");
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(input).expect("writes");
        vec![
            (Format::Plain, input.to_vec()),
            (Format::Gzip, gzip.finish().expect("finishes")),
            (Format::Bzip2, bzip2.finish().expect("finishes")),
            (Format::Xz, xz.finish().expect("finishes")),
            (Format::Zstd, zstd::encode_all(input, 1).expect("compresses")),
        ]
    }

    #[test]
    fn undoes_each_compression_also_in_several_members() {
        for (format, stream) in all_formats(b"hello hello hello") {
            assert_eq!(Format::detect(&stream), format);
            assert_eq!(restore(&stream).expect("intact"), b"hello hello hello", "{format:?}");
            let twice = restore(&stream.repeat(2)).expect("intact");
            assert_eq!(twice, b"hello hello hellohello hello hello", "{format:?}");
        }
    }

    #[test]
    fn damage_and_a_cut_are_errors() {
        for (format, stream) in all_formats(&b"hello".repeat(1000)) {
            if format != Format::Plain {
                assert!(restore(&stream[..stream.len() - 3]).is_err(), "{format:?}");
            }
        }
        assert!(restore(b"\x1f\x8b\x08\0 this is no gzip").is_err());
    }

    #[test]
    fn what_asks_for_too_much_memory_is_refused() {
        let mut options = liblzma::stream::LzmaOptions::new_preset(0).expect("options");
        options.dict_size(512 << 20);
        let mut filters = liblzma::stream::Filters::new();
        filters.lzma2(&options);
        let stream = Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc32).expect("encoder");
        let mut xz = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        xz.write_all(b"hello").expect("writes");
        let error = restore(&xz.finish().expect("finishes")).expect_err("refused");
        assert!(error.to_string().contains("memory limit"), "{error}");
    }

    #[test]
    fn short_streams_are_plain() {
        for stream in [&b""[..], b"a", b"\x1f\x8b", b"BZh"] {
            assert_eq!(restore(stream).expect("plain"), stream);
        }
    }
}
