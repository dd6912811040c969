//! The forms that `--output` gives an image.

use windlass_core::image::media_type;

use super::*;

#[tokio::test]
async fn layers_of_a_base_get_the_compression_that_is_forced() {
    let bench = Bench::new();
    bench.write("a", "a").write("b", "b");
    let mut base = bench.request("FROM scratch\nCOPY a /\n");
    base.tags = vec!["localhost/base".parse().unwrap()];
    let base = bench.outcome(&base).await;
    let mut request = bench.request("FROM localhost/base\nCOPY b /\n");
    let types = |out: &Outcome| -> Vec<String> {
        out.image.manifest.layers.iter().map(|layer| layer.media_type.clone()).collect()
    };
    request.outputs = vec!["type=image,compression=zstd".parse().unwrap()];
    let mixed = bench.outcome(&request).await;
    assert_eq!(types(&mixed), [media_type::OCI_LAYER_GZIP, media_type::OCI_LAYER_ZSTD]);
    for (compression, expected) in [
        ("zstd", media_type::OCI_LAYER_ZSTD),
        ("uncompressed", media_type::OCI_LAYER),
        ("gzip", media_type::OCI_LAYER_GZIP),
    ] {
        let output = format!("type=image,force-compression=true,compression={compression}");
        request.outputs = vec![output.parse().unwrap()];
        let forced = bench.outcome(&request).await;
        assert_eq!(types(&forced), [expected, expected]);
        assert_eq!(forced.image.config.rootfs, mixed.image.config.rootfs);
        let same = forced.image.manifest.layers[0].digest == base.image.manifest.layers[0].digest;
        assert_eq!(same, compression == "gzip");
        // The second time it is remembered, and the same.
        let again = bench.outcome(&request).await;
        assert_eq!(again.image.manifest.layers, forced.image.manifest.layers);
    }
}

#[tokio::test]
async fn nothing_in_a_rewritten_layer_is_younger_than_the_epoch() {
    let bench = Bench::new();
    bench.write("d/a", "a").write("b", "b");
    let mut base = bench.request("FROM scratch\nCOPY d /d\n");
    (base.tags, base.source_date_epoch) = (vec!["localhost/base".parse().unwrap()], Some(2000));
    bench.outcome(&base).await;
    let mut request = bench.request("FROM localhost/base\nCOPY b /d/\n");
    request.source_date_epoch = Some(1000);
    for (output, expected) in
        [("type=image", [2000, 1000]), ("type=image,rewrite-timestamp=true", [1000, 1000])]
    {
        request.outputs = vec![output.parse().unwrap()];
        let out = bench.outcome(&request).await;
        assert_eq!(times(&bench, &out.image, 1), expected, "{output}");
        // Those of the base stay as they are.
        assert_eq!(times(&bench, &out.image, 0), [2000, 2000]);
    }
}

/// The modification times in a layer, in its order.
fn times(bench: &Bench, image: &Image, layer: usize) -> Vec<i64> {
    let blob = bench.store().open_layer(&image.manifest.layers[layer].digest).unwrap();
    let mut reader = TarReader::new(blob);
    let mut times = Vec::new();
    while let Some(member) = reader.next_member().unwrap() {
        times.push(member.entry.mtime);
    }
    times
}
