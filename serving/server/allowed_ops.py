"""The operations that a served graph may consist of, and those of its loading and saving.

A list of what is allowed, not of what is dangerous: TensorFlow has 1,900 operations, more with each
release, and calls even ReadFile and PyFuncStateless stateless. These compute on what they are fed,
and on the memory of their own session; none reaches a file, a process, a network, a clock, or
memory that another request left behind (as Empty does). An architecture that needs another one
adds it here, once somebody has read what it does.
"""

from __future__ import annotations

_BY_KIND = {
    "Arithmetic, comparisons, reductions, linear algebra": """
        Abs AccumulateNV2 Acos Acosh Add AddN AddV2 All Angle Any ApproximateEqual ArgMax ArgMin
        Asin Asinh Atan Atan2 Atanh BandedTriangularSolve BatchMatMul BatchMatMulV2
        BatchMatMulV3 BesselI0 BesselI0e BesselI1 BesselI1e BesselJ0 BesselJ1 BesselK0 BesselK0e
        BesselK1 BesselK1e BesselY0 BesselY1 Betainc Bincount BitwiseAnd BitwiseOr BitwiseXor
        Bucketize Cast Ceil Cholesky ClipByValue Complex ComplexAbs Conj Cos Cosh Cross Cumprod
        Cumsum CumulativeLogsumexp DenseBincount Digamma Div DivNoNan Eig Einsum Equal Erf Erfc
        Erfinv EuclideanNorm Exp Expint Expm1 Floor FloorDiv FloorMod FresnelCos FresnelSin
        Greater GreaterEqual Igamma Igammac Imag Inv Invert IsFinite IsInf IsNan LeftShift Less
        LessEqual Lgamma LinSpace Log Log1p LogMatrixDeterminant LogicalAnd LogicalNot LogicalOr
        Lu MatMul MatrixDeterminant MatrixExponential MatrixInverse MatrixLogarithm MatrixSolve
        MatrixSolveLs MatrixSquareRoot MatrixTriangularSolve Max Maximum Mean Min Minimum Mod
        Mul MulNoNan Ndtri Neg NextAfter NotEqual Polygamma PopulationCount Pow Prod Qr
        RaggedBincount Range Real RealDiv Reciprocal RightShift Rint Round Rsqrt SegmentMax
        SegmentMaxV2 SegmentMean SegmentMin SegmentMinV2 SegmentProd SegmentProdV2 SegmentSum
        SegmentSumV2 Select SelectV2 SelfAdjointEig SelfAdjointEigV2 Sigmoid Sign Sin Sinh
        SparseBincount SparseMatMul SparseSegmentMean SparseSegmentMeanWithNumSegments
        SparseSegmentSqrtN SparseSegmentSqrtNWithNumSegments SparseSegmentSum
        SparseSegmentSumWithNumSegments Spence Sqrt Square SquaredDifference Sub Sum Svd Tan
        Tanh TridiagonalMatMul TridiagonalSolve TruncateDiv TruncateMod UnsortedSegmentMax
        UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum Xdivy Xlog1py Xlogy Zeta
    """,
    "Layers": """
        ApproxTopK AvgPool BiasAdd BiasAddV1 Conv Conv2D DataFormatDimMap DataFormatVecPermute
        DepthwiseConv2dNative Elu FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3
        FusedPadConv2D InTopK InTopKV2 IsotonicRegression L2Loss LRN LeakyRelu LogSoftmax
        MaxPool MaxPoolV2 MaxPoolWithArgmax NthElement Relu Relu6 Selu Softmax
        SoftmaxCrossEntropyWithLogits Softplus Softsign SparseSoftmaxCrossEntropyWithLogits TopK
        TopKV2
    """,
    "Shapes, slices, gathers and scatters": """
        BatchToSpace BatchToSpaceND Bitcast BroadcastArgs BroadcastTo Concat ConcatOffset
        ConcatV2 ConjugateTranspose Const DepthToSpace Dequantize Diag DiagPart
        EnsureShape ExpandDims ExtractImagePatches ExtractVolumePatches Fill Fingerprint Gather
        GatherNd GatherV2 Identity IdentityN InvertPermutation ListDiff LowerBound
        MatrixBandPart MatrixDiag MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3 MatrixDiagV2
        MatrixDiagV3 MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3 MirrorPad OneHot OnesLike
        Pack Pad PadV2 Placeholder PlaceholderWithDefault PreventGradient Rank Reshape Reverse
        ReverseSequence ReverseV2 Roll ScatterNd ScatterNdNonAliasingAdd Shape ShapeN Size Slice
        Snapshot SpaceToBatch SpaceToBatchND SpaceToDepth Split SplitV Squeeze StopGradient
        StridedSlice StridedSliceAssign TensorScatterAdd TensorScatterMax TensorScatterMin
        TensorScatterSub TensorScatterUpdate TensorStridedSliceUpdate Tile Transpose Unique
        UniqueV2 UniqueWithCounts UniqueWithCountsV2 Unpack UnravelIndex UpperBound Where
        ZerosLike
    """,
    "Strings and their parsing": """
        AsString DecodeBase64 DecodeCSV DecodeJSONExample DecodePaddedRaw DecodeRaw EncodeBase64
        ParseTensor ReduceJoin RegexFullMatch
        RegexReplace SerializeTensor StaticRegexFullMatch StaticRegexReplace StringFormat
        StringJoin StringLength StringLower StringNGrams StringSplit StringSplitV2 StringStrip
        StringToHashBucket StringToHashBucketFast StringToHashBucketStrong StringToNumber
        StringUpper Substr UnicodeDecode UnicodeDecodeWithOffsets UnicodeEncode UnicodeScript
        UnicodeTranscode UnsortedSegmentJoin
    """,
    "Sparse, ragged and list tensors": """
        DenseToDenseSetOperation DenseToSparseSetOperation DeserializeManySparse
        DeserializeSparse EmptyTensorList RaggedCross RaggedFillEmptyRows RaggedGather
        RaggedRange RaggedTensorFromVariant RaggedTensorToSparse RaggedTensorToTensor
        RaggedTensorToVariant SerializeManySparse SerializeSparse SetSize SparseAdd SparseConcat
        SparseCross SparseCrossHashed SparseCrossV2 SparseDenseCwiseAdd SparseDenseCwiseDiv
        SparseDenseCwiseMul SparseFillEmptyRows SparseReduceMax SparseReduceMaxSparse
        SparseReduceSum SparseReduceSumSparse SparseReorder SparseReshape SparseSlice
        SparseSoftmax SparseSparseMaximum SparseSparseMinimum SparseSplit SparseTensorDenseAdd
        SparseTensorDenseMatMul SparseToDense SparseToSparseSetOperation TensorListConcat
        TensorListConcatLists TensorListConcatV2 TensorListElementShape TensorListFromTensor
        TensorListGather TensorListGetItem TensorListLength TensorListPopBack TensorListPushBack
        TensorListPushBackBatch TensorListReserve TensorListResize TensorListScatter
        TensorListScatterIntoExistingList TensorListScatterV2 TensorListSetItem TensorListSplit
        TensorListStack
    """,
    "Buckets of tf.Transform": """
        BoostedTreesBucketize
    """,
    "Calls and control flow; what they call is scanned too": """
        Case Enter Exit If LoopCond Merge NextIteration NoOp PartitionedCall
        StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile Switch ToBool While
    """,
    "Variables: memory of the session": """
        Assign AssignVariableOp DisableCopyOnRead IsVariableInitialized ReadVariableOp
        ResourceGather ResourceGatherNd VarHandleOp VarIsInitializedOp Variable VariableShape
        VariableV2
    """,
    "Tables in memory": """
        HashTable HashTableV2 InitializeTable InitializeTableV2 LookupTableExport
        LookupTableExportV2 LookupTableFind LookupTableFindV2 LookupTableImport
        LookupTableImportV2 LookupTableSize LookupTableSizeV2 MutableHashTableV2
    """,
    "Checks; their texts go to the caller": """
        Assert CheckNumerics CheckNumericsV2
    """,
}

COMPUTING = frozenset(name for names in _BY_KIND.values() for name in names.split())
"""Allowed anywhere."""

EXAMPLE_PARSERS = {
    "ParseExample": "tensorflow.Example",
    "ParseExampleV2": "tensorflow.Example",
    "ParseSequenceExample": "tensorflow.SequenceExample",
    "ParseSequenceExampleV2": "tensorflow.SequenceExample",
    "ParseSingleExample": "tensorflow.Example",
    "ParseSingleSequenceExample": "tensorflow.SequenceExample",
}
"""What they parse, their first input, by code of TensorFlow's own that damaged bytes have crashed:
allowed on what a signature takes, as it is, which the server can check before."""

LOOPS = frozenset({"LoopCond", "StatelessWhile", "While"})
"""Of the computing operations those that can run for any time."""

TABLE_INITIALISERS = frozenset({"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"})
"""Read a file: allowed while loading, on files of the model's own assets."""

RESTORING = frozenset({"RestoreV2"})
"""Read the checkpoint: allowed where the saver restores, on the file that the loader names."""

SAVING = frozenset({"MergeV2Checkpoints", "SaveV2", "ShardedFilename"})
"""Write a checkpoint: allowed where the saver saves, which no loader and no request runs."""
