// Files for a question: pictures go along in the request, other documents are uploaded and deleted again.
//
// A file is {name, kind, size, part, id?}. `part` is its part of the message, `id` that of an upload.

export const PICTURES = ["jpeg", "png", "gif", "webp", "bmp", "heic", "heif"].map((type) => `image/${type}`);
const VIDEOS = /^video\//;
const ENDINGS = {
  picture: /\.(jpe?g|png|gif|webp|bmp|heic|heif)$/i,
  video: /\.(mp4|mpe?g|mov|avi|flv|webm|wmv|3gpp?)$/i,
  text: /\.(txt|md|csv|tsv|json|jsonl|xml|ya?ml|toml|ini|log|html?|css|svg|tex|sql|sh|py|js|mjs|ts|tsx|jsx|go|rs|c|h|cc|cpp|hpp|java|kt|rb|php|swift)$/i,
};
export const MOST_TEXT = 1024 * 1024; // bytes of a text that goes along; a longer one is uploaded
export const MOST_BYTES = 100 * 1000 * 1000; // of an upload
const MOST_PICTURE = 3 * 1024 * 1024; // bytes; a larger picture is made smaller where the browser can
const LONGEST_SIDE = 2048; // pixels of a picture that was made smaller
const KEPT = 24 * 3600; // seconds: an upload ends by itself if the tab could not delete it

/** "picture", "video", "text" or "document", by type and name. */
export function kindOf(name, type = "") {
  if (PICTURES.includes(type) || ENDINGS.picture.test(name)) return "picture";
  if (VIDEOS.test(type) || ENDINGS.video.test(name)) return "video";
  const text = /^text\/(?!html)|^application\/(json|xml|yaml|toml)$|\+xml$|\+json$/.test(type);
  return text || ENDINGS.text.test(name) ? "text" : "document";
}

/** A file by its address, which the gateway fetches. Null if it is no address of the web. `kind` "" is told
 * by its name. */
export function fileAt(address, kind = "") {
  const url = URL.canParse(address) ? new URL(address) : null;
  if (!url || !/^https?:$/.test(url.protocol)) return null;
  const name = decoded(url.pathname.split("/").pop()) || url.host;
  const is = kind || kindOf(name);
  if (is === "picture") return { name, kind: is, part: { type: "image_url", image_url: { url: url.href } } };
  if (is === "video") return { name, kind: is, part: { type: "video_url", video_url: { url: url.href } } };
  return { name, kind: "document", part: { type: "file", file: { filename: name, file_url: url.href } } };
}

function decoded(name) {
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

/** Reads a File of the browser. `upload(form)` posts a form to the gateway and gives the file's object.
 * Raises RangeError if it is empty or too large, and what `upload` raises. */
export async function fileOf(file, upload) {
  if (!file.size || file.size > MOST_BYTES) throw new RangeError(file.size ? "large" : "empty");
  const kind = kindOf(file.name, file.type);
  const told = { name: file.name || kind, kind, size: file.size };
  if (kind === "picture") {
    const url = await dataUrl(await smaller(file));
    return { ...told, preview: url, part: { type: "image_url", image_url: { url } } };
  }
  if (kind === "text" && file.size <= MOST_TEXT) {
    const text = decodedText(await file.arrayBuffer());
    if (text !== null) {
      const url = await dataUrl(new Blob([text], { type: "text/plain" }));
      return { ...told, part: { type: "file", file: { filename: told.name, file_data: url } } };
    }
  }
  const form = new FormData();
  form.append("purpose", kind === "video" ? "vision" : "user_data");
  form.append("expires_after[anchor]", "created_at");
  form.append("expires_after[seconds]", String(KEPT));
  form.append("file", file, told.name);
  const { id } = await upload(form);
  const part = kind === "video" ? { type: "video_url", video_url: { file_id: id } } : { type: "file", file: { file_id: id } };
  return { ...told, id, part };
}

function decodedText(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return null; // the platform may know its encoding
  }
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** The picture, drawn smaller if it is large and the browser can read it. */
async function smaller(file) {
  const typed = file.type ? file : new Blob([file], { type: "image/jpeg" });
  if (file.size <= MOST_PICTURE) return typed;
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return typed;
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const made = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
  return made ?? typed;
}

/** The files of a paste or drop. */
export function filesIn(transfer) {
  return [...(transfer?.files ?? [])];
}

export function sizeText(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1_000_000 ? `${Math.round(bytes / 1000)} kB` : `${(bytes / 1_000_000).toFixed(1)} MB`;
}
