//! `windlass image save` and `load`.

use std::path::Path;

use windlass_core::backend::Job;
use windlass_core::image::{
    ArchiveForm as Form, ImageSource, ImageStore, NamedImage, export_layout, fetch_missing, import_archive,
    save_archive, write_archive,
};
use windlass_core::output::is_stdout;
use windlass_core::reference::Reference;
use windlass_core::{Error, ErrorKind, Result};

use super::stdin::Stdin;
use super::transfer::show;
use super::{source, store};
use crate::args::{ArchiveForm, Format, LoadArgs, SaveArgs};
use crate::commands::context::refuse_json;
use crate::output::refuse_terminal;
use crate::session::Session;

pub(super) async fn save(args: &SaveArgs, session: &Session<'_>) -> Result<()> {
    let to_stdout = is_stdout(&args.output);
    if to_stdout {
        if args.form == ArchiveForm::OciDir {
            return Err(Error::new(ErrorKind::InvalidInput, "a directory cannot go to stdout"));
        }
        refuse_terminal("an archive")?;
        refuse_json(&session.output)?;
    }
    let store = store(session)?;
    let mut images = [source::one(&args.source, &store, session).await?];
    if let Some(platform) = &args.platform {
        images[0].image = source::platform_of(&store, &images[0].image, platform, &args.source)?;
    }
    let output = session.program.surroundings.current_dir.join(&args.output);
    let (form, client) = (args.form, &session.host.registry_client);
    session
        .work(None, async |job| {
            // Layers of a base that was never read may still be at their registry.
            fetch_missing(client, &store, &images[0].image, job).await?;
            let (store, images, output) = (store.clone(), images.clone(), output.clone());
            let step = job.events.step(format!("save {}", args.source));
            let write = move |job: &Job| write(&store, &images, form, to_stdout, &output, job);
            step.end(job.blocking(write).await)
        })
        .await?;
    match session.output.format {
        Format::Json => session.output.json(&serde_json::json!({
            "written": args.output,
            "digest": images[0].image.digest,
            "references": images[0].references,
        })),
        _ if to_stdout => Ok(()),
        _ => session.output.result(&format!("{}\n", args.output.display())),
    }
}

fn write(
    store: &ImageStore,
    images: &[NamedImage],
    form: ArchiveForm,
    to_stdout: bool,
    output: &Path,
    job: &Job,
) -> Result<()> {
    let archive = match form {
        ArchiveForm::OciDir => return export_layout(store, images, output, job),
        ArchiveForm::Oci => Form::Oci,
        ArchiveForm::Docker => Form::Docker,
    };
    if to_stdout {
        write_archive(store, images, archive, std::io::stdout().lock(), job)
    } else {
        save_archive(store, images, archive, output, job)
    }
}

pub(super) async fn load(args: &LoadArgs, session: &Session<'_>) -> Result<()> {
    let tags: Vec<Reference> = args.tags.iter().map(|tag| tag.parse()).collect::<Result<_>>()?;
    let store = store(session)?;
    let images = read(args, &store, session).await?;
    let named = name(images, &tags, args)?;
    for NamedImage { image, references } in &named {
        references.iter().try_for_each(|reference| store.tag(reference, image))?;
    }
    match session.output.format {
        Format::Json => {
            let loaded = named.iter().map(
                |named| serde_json::json!({ "references": named.references, "digest": named.image.digest }),
            );
            session.output.json(&loaded.collect::<Vec<_>>())
        }
        Format::Text | Format::Paths => {
            named.iter().try_for_each(|named| show(&named.references, &named.image, session))
        }
    }
}

async fn read(args: &LoadArgs, store: &ImageStore, session: &Session<'_>) -> Result<Vec<NamedImage>> {
    if args.input == Path::new("-") {
        use std::io::IsTerminal;

        if std::io::stdin().is_terminal() {
            return Err(Error::new(ErrorKind::InvalidInput, "an archive is not typed in")
                .with_hint("name its file with `--input`, or redirect stdin"));
        }
        let store = store.clone();
        let read = async |job: &Job| {
            let step = job.events.step("read stdin");
            let import = move |job: &Job| import_archive(&store, Stdin::start(job), "stdin", job);
            step.end(job.blocking(import).await)
        };
        return session.work(None, read).await;
    }
    let path = session.program.surroundings.current_dir.join(&args.input);
    let found = if path.exists() {
        ImageSource::from_path(&path)
    } else {
        // `DIR:TAG` and the forms with a prefix are no paths, but mean something.
        let text = args.input.to_string_lossy();
        match source::parse(&text, &session.program.surroundings.current_dir)? {
            ImageSource::Store(_) => {
                return Err(Error::new(ErrorKind::NotFound, format!("`{text}` does not exist")));
            }
            found => found,
        }
    };
    let client = &session.host.registry_client;
    session.work(None, async |job| found.import(client, store, None, job).await).await
}

/// Decides what the images are called: as the user says, else as the archive does.
fn name(mut images: Vec<NamedImage>, tags: &[Reference], args: &LoadArgs) -> Result<Vec<NamedImage>> {
    let shown = args.input.display().to_string();
    if !tags.is_empty() {
        if images.len() != 1 {
            return Err(source::several(&shown, images.len()));
        }
        images.iter_mut().for_each(|named| named.references = tags.to_vec());
    }
    match images.iter().find(|named| named.references.is_empty()) {
        Some(nameless) => {
            let message = format!("the image `{}` in `{shown}` has no name", nameless.image.digest);
            Err(Error::new(ErrorKind::InvalidInput, message).with_hint("name it: `--tag repository:tag`"))
        }
        None => Ok(images),
    }
}
