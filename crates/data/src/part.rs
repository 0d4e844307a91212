//! The four files of the data set: names, shapes, sizes and pinned checksums.

use crate::idx::Kind;

/// One of the four files that make up the data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// 60,000 training images.
    TrainImages,
    /// The labels of the training images.
    TrainLabels,
    /// 10,000 test images; their file is called `t10k`.
    TestImages,
    /// The labels of the test images.
    TestLabels,
}

impl Part {
    /// All four, in the order that every array of this crate keeps.
    pub const ALL: [Part; 4] = [
        Part::TrainImages,
        Part::TrainLabels,
        Part::TestImages,
        Part::TestLabels,
    ];

    /// The file's name without `.gz`.
    pub const fn file_name(self) -> &'static str {
        match self {
            Part::TrainImages => "train-images-idx3-ubyte",
            Part::TrainLabels => "train-labels-idx1-ubyte",
            Part::TestImages => "t10k-images-idx3-ubyte",
            Part::TestLabels => "t10k-labels-idx1-ubyte",
        }
    }

    /// Images or labels.
    pub const fn kind(self) -> Kind {
        match self {
            Part::TrainImages | Part::TestImages => Kind::Images,
            Part::TrainLabels | Part::TestLabels => Kind::Labels,
        }
    }

    /// Bytes of the genuine decompressed file.
    pub const fn bytes(self) -> u64 {
        match self {
            Part::TrainImages => 47_040_016,
            Part::TrainLabels => 60_008,
            Part::TestImages => 7_840_016,
            Part::TestLabels => 10_008,
        }
    }

    /// SHA-256 of the genuine decompressed file, in lower-case hexadecimal.
    ///
    /// The compressed files cannot be pinned: Debian's differ from upstream's in the gzip header.
    pub const fn sha256(self) -> &'static str {
        match self {
            Part::TrainImages => "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            Part::TrainLabels => "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            Part::TestImages => "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            Part::TestLabels => "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        }
    }

    /// SHA-256 of the file of the same name in the digit MNIST, which has the same sizes and is the usual mix-up.
    pub(crate) const fn digit_mnist_sha256(self) -> &'static str {
        match self {
            Part::TrainImages => "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            Part::TrainLabels => "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            Part::TestImages => "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            Part::TestLabels => "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.file_name())
    }
}
