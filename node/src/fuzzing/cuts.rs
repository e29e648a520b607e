//! How an input says where its own text is cut: what comes over a network comes in pieces.

/// The first two bytes of an input are a seed, and the rest is text in at most 16 pieces.
pub(super) fn cut(input: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let Some((seed, text)) = input.split_first_chunk::<2>() else { return (&[], Vec::new()) };
    let mut seed = u32::from(u16::from_be_bytes(*seed));
    let (mut rest, mut pieces) = (text, Vec::new());
    while !rest.is_empty() && pieces.len() < 15 {
        // Numerical Recipes' generator; its upper bits are the good ones.
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (piece, left) = rest.split_at((seed >> 16) as usize % (rest.len().min(40) + 1));
        pieces.push(piece);
        rest = left;
    }
    pieces.push(rest);
    (text, pieces)
}
