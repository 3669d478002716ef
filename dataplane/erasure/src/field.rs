//! GF(2^8) with polynomial x^8 + x^4 + x^3 + x^2 + 1 (0x11d), generator 2.

const POLYNOMIAL: u16 = 0x11d;

const fn tables() -> ([u8; 512], [u8; 256]) {
    let mut exp = [0u8; 512];
    let mut log = [0u8; 256];
    let mut x: u16 = 1;
    let mut i = 0;
    while i < 255 {
        exp[i] = x as u8;
        exp[i + 255] = x as u8;
        log[x as usize] = i as u8;
        x <<= 1;
        if x & 0x100 != 0 {
            x ^= POLYNOMIAL;
        }
        i += 1;
    }
    (exp, log)
}
static TABLES: ([u8; 512], [u8; 256]) = tables();

pub(crate) fn mul(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        return 0;
    }
    let (exp, log) = &TABLES;
    exp[log[a as usize] as usize + log[b as usize] as usize]
}

/// # Panics
/// On 0, which has no inverse.
pub(crate) fn inverse(a: u8) -> u8 {
    assert_ne!(a, 0, "0 has no inverse");
    let (exp, log) = &TABLES;
    exp[255 - log[a as usize] as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_has_its_inverse() {
        for a in 1..=255 {
            assert_eq!(mul(a, inverse(a)), 1);
        }
    }

    #[test]
    fn multiplication_is_carry_less_modulo_the_polynomial() {
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                let mut wide = 0u16;
                for bit in 0..8 {
                    if b >> bit & 1 == 1 {
                        wide ^= (a as u16) << bit;
                    }
                }
                for bit in (8..16).rev() {
                    if wide >> bit & 1 == 1 {
                        wide ^= POLYNOMIAL << (bit - 8);
                    }
                }
                assert_eq!(mul(a, b), wide as u8);
            }
        }
    }
}
