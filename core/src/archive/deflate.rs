//! One block of the parallel compressor: bytes in, whole deflate blocks out.
//!
//! What does not compress (pictures, archives, encrypted data) is recognised and stored: trying
//! takes deflate longer than anything else, for nothing.

use std::io;

use flate2::{Compress, FlushCompress, Status};

/// The window of deflate.
pub(super) const WINDOW_BYTES: usize = 32 << 10;
/// An empty last block, which ends a deflate stream.
pub(super) const END: [u8; 2] = [0x03, 0x00];
/// The input is judged in pieces of this size.
const PROBE_BYTES: usize = 8 << 10;
/// The most that a stored block holds.
const STORED_BYTES: usize = 0xffff;

/// Compresses `input[start..]` and appends it to `output`, ended on a byte boundary; what lies
/// before `start` serves as dictionary. The outcome depends on the arguments alone.
pub(super) fn compress(input: &[u8], start: usize, level: u32, output: &mut Vec<u8>) -> io::Result<()> {
    let mut probe = Probe::new(input);
    let mut from = start;
    while from < input.len() {
        let store = probe.is_incompressible(from);
        let mut to = (from + PROBE_BYTES).min(input.len());
        while to < input.len() && probe.is_incompressible(to) == store {
            to = (to + PROBE_BYTES).min(input.len());
        }
        if store {
            append_stored(&input[from..to], output);
        } else {
            append_deflated(
                &input[from.saturating_sub(WINDOW_BYTES)..from],
                &input[from..to],
                level,
                output,
            )?;
        }
        from = to;
    }
    Ok(())
}

fn append_stored(input: &[u8], output: &mut Vec<u8>) {
    for piece in input.chunks(STORED_BYTES) {
        let length = piece.len() as u16;
        output.push(0);
        output.extend_from_slice(&length.to_le_bytes());
        output.extend_from_slice(&(!length).to_le_bytes());
        output.extend_from_slice(piece);
    }
}

fn append_deflated(dictionary: &[u8], input: &[u8], level: u32, output: &mut Vec<u8>) -> io::Result<()> {
    // A new one each time: `reset` leaves old bytes in the window, and which matches are found
    // next to a dictionary depends on them.
    let mut compress = Compress::new(flate2::Compression::new(level), false);
    if !dictionary.is_empty() {
        compress.set_dictionary(dictionary)?;
    }
    // Room for input that does not compress, so that one call does it all.
    output.reserve(input.len() + input.len() / 8 + 1024);
    let status = compress.compress_vec(input, output, FlushCompress::Sync)?;
    let took_all = compress.total_in() == input.len() as u64;
    if status == Status::Ok && took_all && output.len() < output.capacity() {
        Ok(())
    } else {
        Err(io::Error::other("deflate did not take a whole block"))
    }
}

/// Judges pieces of one input, in order.
struct Probe<'a> {
    input: &'a [u8],
    /// Where a sequence of four bytes was last seen, by its hash, plus one.
    seen: Vec<u32>,
    /// The last piece that was judged, and the verdict: each is asked for twice.
    last: Option<(usize, bool)>,
}

impl<'a> Probe<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self { input, seen: Vec::new(), last: None }
    }

    /// Says whether the piece that starts here has bytes that are evenly spread and hardly a
    /// sequence that comes twice.
    fn is_incompressible(&mut self, from: usize) -> bool {
        if let Some((at, verdict)) = self.last
            && at == from
        {
            return verdict;
        }
        let piece = &self.input[from..(from + PROBE_BYTES).min(self.input.len())];
        // The start alone tells most text apart.
        let verdict = is_even(&piece[..piece.len().min(1024)], 3)
            && piece.len() == PROBE_BYTES
            && is_even(piece, 10)
            && !self.repeats(from, from + piece.len());
        self.last = Some((from, verdict));
        verdict
    }

    fn repeats(&mut self, from: usize, to: usize) -> bool {
        const SLOT_BITS: u32 = 12;
        /// One sequence in 16 is looked at: about 512 in a piece, of which random data repeats none.
        const MOST_REPEATS: usize = 8;
        self.seen.resize(1 << SLOT_BITS, 0);
        let hash = |bytes: &[u8]| {
            u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).wrapping_mul(0x9e37_79b1)
        };
        // Found first and looked at afterwards: no processor foresees which one in 16 it is.
        let mut chosen = [0_u16; PROBE_BYTES];
        let mut count = 0;
        for (offset, bytes) in self.input[from..to].windows(4).enumerate() {
            chosen[count % PROBE_BYTES] = offset as u16;
            count += usize::from(hash(bytes) >> 28 == 0);
        }
        let mut repeats = 0;
        for offset in &chosen[..count] {
            let at = from + usize::from(*offset);
            let bytes = &self.input[at..at + 4];
            let slot = &mut self.seen[(hash(bytes) >> (28 - SLOT_BITS)) as usize & ((1 << SLOT_BITS) - 1)];
            let before = std::mem::replace(slot, at as u32 + 1) as usize;
            let near = before > 0 && at + 1 - before <= WINDOW_BYTES;
            repeats += usize::from(near && self.input[before - 1..before + 3] == *bytes);
        }
        repeats > MOST_REPEATS
    }
}

/// Says whether all byte values are about equally frequent: the sum of the squares of their
/// counts exceeds that of a perfectly even spread by less than one part in `tolerance`, not
/// counting what chance adds.
fn is_even(piece: &[u8], tolerance: u64) -> bool {
    let mut counts = [0u32; 256];
    for byte in piece {
        counts[usize::from(*byte)] += 1;
    }
    let squares: u64 = counts.iter().map(|count| u64::from(*count) * u64::from(*count)).sum();
    let length = piece.len() as u64;
    let even = length * length / 256;
    squares < even + length + even / tolerance
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 7_u64;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(length)
        .collect()
    }

    fn judge(input: &[u8]) -> Vec<bool> {
        let mut probe = Probe::new(input);
        (0..input.len()).step_by(PROBE_BYTES).map(|from| probe.is_incompressible(from)).collect()
    }

    #[test]
    fn knows_noise_from_what_compresses() {
        let noise = noise(5 * PROBE_BYTES);
        assert_eq!(judge(&noise), [true; 5]);
        let base64: Vec<u8> = noise.iter().map(|b| b'0' + b % 64).collect();
        assert_eq!(judge(&base64), [false; 5]);
        // Every second byte is zero, then noise that came before.
        let thin: Vec<u8> = noise.iter().flat_map(|b| [*b, 0]).collect();
        assert_eq!(judge(&thin), [false; 10]);
        let twice = [&noise[..2 * PROBE_BYTES], &noise[..2 * PROBE_BYTES]].concat();
        assert_eq!(judge(&twice), [true, true, false, false]);
    }

    #[test]
    fn noise_grows_by_the_heads_of_its_blocks_alone() {
        let noise = noise(256 << 10);
        let mut output = Vec::new();
        compress(&noise, 0, 3, &mut output).expect("compresses");
        assert_eq!(output.len(), noise.len() + 5 * noise.len().div_ceil(STORED_BYTES));
    }
}
