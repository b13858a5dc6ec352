//! Which blobs have their bytes read: all, or one of so many shares, so that a run each night reads
//! everything in a month.

use std::str::FromStr;

use crate::model::Digest;

/// A share of all blobs, `3/30`: the third of thirty. Which share a blob is in follows from its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    part: u32,
    of: u32,
}

impl Share {
    /// Everything.
    pub const ALL: Self = Self { part: 1, of: 1 };
    /// The most shares.
    pub const MAX: u32 = 1000;

    /// Whether the blob is in this share.
    pub fn contains(self, digest: &Digest) -> bool {
        let [a, b, c, d, ..] = *digest.as_bytes();
        u32::from_be_bytes([a, b, c, d]) % self.of == self.part - 1
    }
}

/// Not a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a share such as `3/30`: a part from 1 on, and at most {max} parts", max = Share::MAX)]
pub struct ShareError;

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let (part, of) = text.split_once('/').ok_or(ShareError)?;
        let number = |text: &str| text.parse::<u32>().map_err(|_| ShareError);
        let share = Self { part: number(part)?, of: number(of)? };
        let valid = share.of <= Self::MAX && (1..=share.of).contains(&share.part);
        valid.then_some(share).ok_or(ShareError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_blob_is_in_exactly_one_share() {
        for n in 0..200_u32 {
            let digest = Digest::of(&n.to_le_bytes());
            let shares = (1..=30).filter(|part| Share { part: *part, of: 30 }.contains(&digest)).count();
            assert_eq!(shares, 1);
            assert!(Share::ALL.contains(&digest));
        }
    }

    #[test]
    fn shares_count_from_one_and_not_beyond_what_there_is() {
        assert_eq!("3/30".parse(), Ok(Share { part: 3, of: 30 }));
        for bad in ["", "3", "0/30", "31/30", "1/0", "1/1001", "-1/3", "a/b", "1/2/3"] {
            assert_eq!(bad.parse::<Share>(), Err(ShareError), "{bad}");
        }
    }
}
