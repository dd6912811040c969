//! What an image is made of.

use serde::Serialize;
use windlass_core::Result;
use windlass_core::digest::Digest;
use windlass_core::image::{Descriptor, FetchLayers, Image, ImageConfig, ImageStore, Manifest, pull};
use windlass_core::platform::Platform;

use super::{source, store};
use crate::args::{Format, InspectArgs};
use crate::output::{Table, bytes, clean};
use crate::session::Session;

#[derive(Serialize)]
struct Inspected {
    source: String,
    digest: Digest,
    media_type: String,
    images: Vec<InspectedImage>,
}

#[derive(Serialize)]
struct InspectedImage {
    digest: Digest,
    platform: Platform,
    size_bytes: u64,
    manifest: Manifest,
    config: ImageConfig,
}

pub(super) async fn run(args: &InspectArgs, session: &Session<'_>) -> Result<()> {
    let platform: Option<Platform> = args.platform.as_deref().map(str::parse).transpose()?;
    let store = store(session)?;
    let (image, manifests) = if args.remote {
        let reference = args.source.parse()?;
        let client = &session.host.registry_client;
        let layers = FetchLayers::WhenRead;
        let pulled = session
            .work(None, async |job| pull(client, &store, &reference, platform.as_ref(), layers, job).await);
        let pulled = pulled.await?;
        (pulled.image, pulled.manifests)
    } else {
        let image = source::one(&args.source, &store, session).await?.image;
        let manifests = manifests(&store, &image, platform.as_ref(), &args.source)?;
        (image, manifests)
    };
    let images = manifests.iter().map(|manifest| inspect(&store, manifest)).collect::<Result<_>>()?;
    let (source, digest, media_type) = (args.source.clone(), image.digest, image.media_type.clone());
    let inspected = Inspected { source, digest, media_type, images };
    match session.output.format {
        Format::Json => session.output.json(&inspected),
        Format::Text | Format::Paths => session.output.result(&as_text(&inspected)),
    }
}

fn manifests(
    store: &ImageStore,
    image: &Descriptor,
    platform: Option<&Platform>,
    source: &str,
) -> Result<Vec<Descriptor>> {
    match platform {
        Some(platform) => Ok(vec![store.choose(image, platform, &format!("`{source}`"))?]),
        None => store.manifests(image),
    }
}

fn inspect(store: &ImageStore, descriptor: &Descriptor) -> Result<InspectedImage> {
    let image = Image::load(store, descriptor)?;
    let parts = std::iter::once(&image.manifest.config).chain(&image.manifest.layers);
    Ok(InspectedImage {
        digest: descriptor.digest,
        platform: image.config.platform(),
        size_bytes: parts.map(|part| part.size_bytes).sum(),
        manifest: image.manifest,
        config: image.config,
    })
}

fn as_text(inspected: &Inspected) -> String {
    let mut facts = Table::default();
    facts.row(["source", &clean(&inspected.source)]);
    facts.row(["digest", &inspected.digest.to_string()]);
    facts.row(["media type", &clean(&inspected.media_type)]);
    let images = inspected.images.iter().map(|image| format!("\n{}", image_as_text(image)));
    facts.render() + &images.collect::<String>()
}

fn image_as_text(image: &InspectedImage) -> String {
    let config = &image.config.config;
    let mut facts = Table::default();
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            facts.row([name.to_owned(), clean(&value)]);
        }
    };
    let list = |items: &[String]| if items.is_empty() { String::new() } else { format!("{items:?}") };
    fact("platform", image.platform.to_string());
    fact("manifest", image.digest.to_string());
    fact("image id", image.manifest.config.digest.to_string());
    fact("created", image.config.created.clone().unwrap_or_default());
    fact("size", format!("{} in {} layers", bytes(image.size_bytes), image.manifest.layers.len()));
    fact("user", config.user.clone());
    fact("workdir", config.working_dir.clone());
    fact("entrypoint", list(config.entrypoint.as_deref().unwrap_or_default()));
    fact("cmd", list(config.cmd.as_deref().unwrap_or_default()));
    for variable in &config.env {
        fact("env", variable.clone());
    }
    for (name, value) in &config.labels {
        fact("label", format!("{name}={value}"));
    }
    facts.render() + "\n" + &history(image)
}

/// The instructions, each with the layer it made.
fn history(image: &InspectedImage) -> String {
    let mut table = Table::new(["LAYER", "SIZE", "MADE BY"]).align_right(1);
    let mut layers = image.manifest.layers.iter();
    for step in &image.config.history {
        let layer = if step.empty_layer { None } else { layers.next() };
        let made_by = clean(step.created_by.as_deref().unwrap_or_default());
        table.row([
            layer.map_or_else(|| "-".to_owned(), |layer| layer.digest.short()),
            layer.map_or_else(String::new, |layer| bytes(layer.size_bytes)),
            made_by.split_whitespace().collect::<Vec<_>>().join(" "),
        ]);
    }
    // An image need not have a history.
    for layer in layers {
        table.row([layer.digest.short(), bytes(layer.size_bytes), String::new()]);
    }
    table.render()
}
