//! A part of something: so many bytes, or so many hundredths of it.

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// So many bytes, however much there is.
    Bytes(u64),
    /// So many hundredths of what there is.
    Percent(u8),
}

impl Share {
    /// How many bytes of `total` it is; perhaps more than there are.
    pub const fn of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            // Divided first: the product of a large disk may not fit.
            Self::Percent(percent) => total / 100 * percent as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_what_they_are_and_a_share_depends_on_the_whole() {
        assert_eq!(Share::Bytes(7).of(0), 7);
        assert_eq!(Share::Percent(5).of(2000), 100);
        assert_eq!(Share::Percent(90).of(u64::MAX), u64::MAX / 100 * 90);
    }
}
