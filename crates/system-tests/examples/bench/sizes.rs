//! How much is measured.

/// The sizes of all rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// B1 to B4, B13: documents of three cells.
    pub(crate) documents: [u64; 3],
    /// B5: files of 2 to 20 KB.
    pub(crate) files: u64,
    /// B6: contents, and the length of each.
    pub(crate) large: (u64, u64),
    /// B4: the length of one content.
    pub(crate) huge: u64,
    /// B7: files of all sorts.
    pub(crate) mix: u64,
    /// B8: documents of each of eight cells.
    pub(crate) parallel: u64,
    /// B9: seconds of each measurement.
    pub(crate) polling: f64,
    /// B10: exports accepted in each measurement.
    pub(crate) accepted: usize,
    /// B11: ranges of each size.
    pub(crate) ranges: [usize; 3],
    /// B12: documents of the snapshot.
    pub(crate) imported: u64,
    /// B14: documents, small files, large ones of 250 MB and mixed ones.
    pub(crate) shapes: (u64, u64, u64, u64),
}

impl Sizes {
    /// A few minutes.
    pub(crate) const SHORT: Self = Self {
        documents: [20_000, 80_000, 300_000],
        files: 10_000,
        large: (4, 250_000_000),
        huge: 1_000_000_000,
        mix: 200,
        parallel: 40_000,
        polling: 3.0,
        accepted: 3_000,
        ranges: [1_000, 200, 20],
        imported: 80_000,
        shapes: (900_000, 30_000, 8, 1_000),
    };
    /// What the goals speak of.
    pub(crate) const FULL: Self = Self {
        documents: [20_000, 80_000, 2_000_000],
        files: 100_000,
        large: (10, 500_000_000),
        huge: 5_000_000_000,
        mix: 1_000,
        parallel: 200_000,
        polling: 10.0,
        accepted: 10_000,
        ranges: [4_000, 600, 80],
        imported: 2_000_000,
        shapes: (2_000_000, 100_000, 20, 5_000),
    };
}
