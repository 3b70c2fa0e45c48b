// Everything the page says, in two languages, and how numbers, dates and times are written in them.

const ENGLISH = {
  "skip": "Skip to the contents",
  "product": "Cell export",
  "language": "Language",
  "close": "Close",
  "cancel": "Cancel",
  "copy": "Copy",
  "copied": "Copied",
  "sign.title": "Open this cell",
  "sign.hint": "An access token with the privilege “root” on this cell. It stays in this tab and is forgotten when the tab is closed.",
  "sign.token": "Access token",
  "sign.in": "Open",
  "sign.out": "Sign out",
  "sign.none": "Please enter a token.",
  "sign.garbled": "This is not a token: tokens have no spaces and no special characters.",
  "sign.opened": "The cell is open.",
  "export.title": "New export",
  "export.name": "Name of the snapshot (optional)",
  "export.hint": "Letters, digits, “-” and “_”. Without a name it is called after the cell and the time.",
  "export.start": "Start export",
  "export.badName": "A name has 1 to 192 letters, digits, “-” or “_”.",
  "job.export": "Export of {name}",
  "job.import": "Import of {name}",
  "job.dry-run": "Dry run of {name}",
  "job.cancel": "Cancel",
  "job.cancelling": "Being cancelled…",
  "job.lost": "The connection is lost. Trying again…",
  "state.queued": "waiting",
  "state.running": "running",
  "state.succeeded": "done",
  "state.failed": "failed",
  "state.cancelled": "cancelled",
  "fact.documents": "Documents",
  "fact.files": "Files",
  "fact.bytes": "Data",
  "fact.rate": "Rate",
  "fact.left": "Time left",
  "fact.queue": "Place in the queue",
  "fact.attempt": "Attempt",
  "fact.of": "{done} of {total}",
  "fact.about": "{done} of about {total}",
  "rate": "{bytes}/s",
  "spoken.progress": "{percent}, {left} left",
  "spoken.percent": "{percent}",
  "spoken.queued": "Waiting, place {place} in the queue",
  "done.export": "The snapshot {name} is ready: {size}.",
  "done.import": "The cell “{cell}” now holds what the snapshot {name} says.",
  "done.dry-run": "The snapshot {name} was examined. Nothing was changed.",
  "ended.failed": "It failed.",
  "ended.cancelled": "It was cancelled.",
  "snapshots.title": "Snapshots",
  "snapshots.refresh": "Refresh",
  "snapshots.none": "There are no snapshots yet. Start an export, or bring one in.",
  "snapshots.more": "Show more",
  "snapshots.failed": "failed",
  "snapshots.digest": "SHA-256",
  "snapshots.copyDigest": "Copy the SHA-256 of {file}",
  "snapshots.download": "Download",
  "snapshots.downloadOf": "Download {file}",
  "snapshots.import": "Import…",
  "snapshots.importOf": "Import {file}: examine it first",
  "snapshots.delete": "Delete",
  "snapshots.deleteOf": "Delete {file}",
  "snapshots.deleted": "{file} was deleted.",
  "snapshots.downloading": "Downloading {file}",
  "snapshots.downloaded": "{file} was downloaded.",
  "delete.title": "Delete {file}?",
  "delete.text": "The file is removed from the cell’s snapshots. This cannot be undone.",
  "delete.yes": "Delete",
  "commands.title": "Download with a command",
  "commands.hint": "This snapshot is too large for the memory of this browser. Put your token into the variable CELLEXPORT_TOKEN and run one of these; both go on where they were interrupted.",
  "upload.title": "Bring in a snapshot",
  "upload.file": "Zip file",
  "upload.hint": "The file is stored among the snapshots under its own name. Nothing in the cell changes until you import it.",
  "upload.start": "Upload",
  "upload.none": "Please choose a zip file.",
  "upload.badName": "The file’s name must be letters, digits, “-” and “_”, with “.zip” at the end.",
  "upload.done": "{file} was uploaded.",
  "upload.replaceTitle": "Replace {file}?",
  "upload.replaceText": "There is a snapshot of this name already. The upload takes its place.",
  "upload.replaceYes": "Replace",
  "import.do": "Import now…",
  "import.title": "Replace everything in the cell “{cell}”?",
  "import.text": "All documents and files of this cell are replaced by those of the snapshot {name}. This cannot be undone; an export made before keeps what is there now.",
  "import.yes": "Replace the contents",
  "found.good": "This snapshot can be imported.",
  "found.bad": "This snapshot cannot be imported.",
  "found.changes": "What an import would change",
  "found.kind": "Kind",
  "found.added": "Added",
  "found.replaced": "Changed",
  "found.removed": "Removed",
  "found.unchanged": "Same",
  "found.documents": "Documents",
  "found.files": "Files",
  "found.collections": "Boxes, collections",
  "found.kept": "It was taken from this cell: ids stay as they are.",
  "found.new": "It was taken from another cell: ids are made anew.",
  "found.repaired": "Damaged links that would be repaired: {count}.",
  "found.left": "Entries that would be left out: {count}.",
  "found.faults": "Faults: {count}",
  "found.moreFaults": "and {count} more",
  "fault.code": "Error code {code}",
  "fault.said": "The service says: {words}",
  "fault.unreachable": "The service cannot be reached. Is the network there?",
  "fault.late": "The service did not answer in time.",
  "fault.page": "The page cannot go on: {words}",
  "fault.saving": "The file could not be saved: {words}",
  "fault.copying": "The browser did not let the page copy this.",
  "fault.401": "This token is not accepted here. It may be wrong, or have run out.",
  "fault.403": "This token is valid but does not suffice: it needs the privilege “root” on this cell.",
  "fault.404": "It is not there (any more).",
  "fault.409": "This cannot be done now.",
  "fault.4xx": "The service refuses this.",
  "fault.5xx": "Something went wrong in the service.",
  "fault.503": "The service cannot do this now. Try again a little later.",
  "fault.PR401-AU-0002": "The token has run out. Get a new one.",
  "fault.PR401-AU-0007": "This is a refresh token. An access token is needed.",
  "fault.PR404-DV-0003": "There is no such cell.",
  "fault.PR400-MC-0001": "The file is no complete snapshot.",
  "fault.PR400-MC-0003": "The snapshot is of a version that is not known here.",
  "fault.PR400-MC-0004": "The file is no zip file.",
  "fault.PR400-EX-0001": "The snapshot is damaged or was not made by an export.",
  "fault.PR409-CM-0002": "The cell is busy with another export or import. Wait for its end.",
  "fault.PR409-DV-0002": "There is a snapshot of this name already. Choose another name.",
  "fault.PR409-EX-0001": "It was cancelled.",
  "fault.PR409-EX-0002": "It had already ended.",
  "fault.PR413-EX-0001": "The file is larger than the service takes.",
  "fault.PR500-CM-0002": "The contents of a file in the cell could not be read.",
  "fault.PR500-DV-0001": "Contents of files in the cell are not what they should be.",
  "fault.PR500-DV-0002": "The description of a file or box in the cell is damaged.",
  "fault.PR500-SV-0002": "The database could not make sense of the cell’s data.",
  "fault.PR503-EX-0001": "It was interrupted too often and given up. Try again.",
  "fault.PR503-EX-0002": "It did not finish in time.",
  "fault.PR503-SV-0005": "The disks of the service are almost full.",
  "fault.PR507-EX-0001": "The snapshots of this cell take too much space. Delete some first.",
};

const JAPANESE = {
  "skip": "本文へ移動",
  "product": "セルエクスポート",
  "language": "言語",
  "close": "閉じる",
  "cancel": "キャンセル",
  "copy": "コピー",
  "copied": "コピーしました",
  "sign.title": "このセルを開く",
  "sign.hint": "このセルの「root」権限を持つアクセストークンが必要です。トークンはこのタブだけに保持され、タブを閉じると消去されます。",
  "sign.token": "アクセストークン",
  "sign.in": "開く",
  "sign.out": "サインアウト",
  "sign.none": "トークンを入力してください。",
  "sign.garbled": "トークンの形式が正しくありません。空白や特殊な文字は使えません。",
  "sign.opened": "セルを開きました。",
  "export.title": "新しいエクスポート",
  "export.name": "スナップショット名（任意）",
  "export.hint": "英数字と「-」「_」が使えます。省略すると、セル名と日時から名前が付きます。",
  "export.start": "エクスポート開始",
  "export.badName": "名前は 1～192 文字の英数字と「-」「_」で指定してください。",
  "job.export": "{name} のエクスポート",
  "job.import": "{name} のインポート",
  "job.dry-run": "{name} の事前確認",
  "job.cancel": "中止",
  "job.cancelling": "中止しています…",
  "job.lost": "接続が切れました。再接続しています…",
  "state.queued": "待機中",
  "state.running": "実行中",
  "state.succeeded": "完了",
  "state.failed": "失敗",
  "state.cancelled": "中止",
  "fact.documents": "ドキュメント",
  "fact.files": "ファイル",
  "fact.bytes": "データ量",
  "fact.rate": "速度",
  "fact.left": "残り時間",
  "fact.queue": "待ち順",
  "fact.attempt": "試行回数",
  "fact.of": "{done} / {total}",
  "fact.about": "{done} / 約 {total}",
  "rate": "{bytes}/秒",
  "spoken.progress": "{percent}、残り {left}",
  "spoken.percent": "{percent}",
  "spoken.queued": "待機中、{place} 番目です",
  "done.export": "スナップショット {name} ができました（{size}）。",
  "done.import": "セル「{cell}」の内容は、スナップショット {name} のとおりになりました。",
  "done.dry-run": "スナップショット {name} を確認しました。セルは変更されていません。",
  "ended.failed": "失敗しました。",
  "ended.cancelled": "中止されました。",
  "snapshots.title": "スナップショット",
  "snapshots.refresh": "更新",
  "snapshots.none": "スナップショットはまだありません。エクスポートするか、ファイルをアップロードしてください。",
  "snapshots.more": "さらに表示",
  "snapshots.failed": "失敗",
  "snapshots.digest": "SHA-256",
  "snapshots.copyDigest": "{file} の SHA-256 をコピー",
  "snapshots.download": "ダウンロード",
  "snapshots.downloadOf": "{file} をダウンロード",
  "snapshots.import": "インポート…",
  "snapshots.importOf": "{file} をインポート（まず事前確認）",
  "snapshots.delete": "削除",
  "snapshots.deleteOf": "{file} を削除",
  "snapshots.deleted": "{file} を削除しました。",
  "snapshots.downloading": "{file} をダウンロードしています",
  "snapshots.downloaded": "{file} をダウンロードしました。",
  "delete.title": "{file} を削除しますか？",
  "delete.text": "このファイルはスナップショットの一覧から削除されます。元に戻すことはできません。",
  "delete.yes": "削除",
  "commands.title": "コマンドでダウンロード",
  "commands.hint": "このスナップショットは、ブラウザーのメモリーで扱うには大きすぎます。トークンを環境変数 CELLEXPORT_TOKEN に設定し、次のどちらかを実行してください。中断しても続きから再開できます。",
  "upload.title": "ファイルのアップロード",
  "upload.file": "zip ファイル",
  "upload.hint": "ファイルは元の名前のままスナップショットの一覧に保存されます。インポートするまでセルの内容は変わりません。",
  "upload.start": "アップロード",
  "upload.none": "zip ファイルを選択してください。",
  "upload.badName": "ファイル名は英数字と「-」「_」で、末尾を「.zip」にしてください。",
  "upload.done": "{file} をアップロードしました。",
  "upload.replaceTitle": "{file} を置き換えますか？",
  "upload.replaceText": "同じ名前のスナップショットがあります。アップロードしたファイルに置き換わります。",
  "upload.replaceYes": "置き換える",
  "import.do": "インポート…",
  "import.title": "セル「{cell}」の内容をすべて置き換えますか？",
  "import.text": "このセルのドキュメントとファイルは、すべてスナップショット {name} の内容に置き換わります。元に戻すことはできません。現在の内容を残すには、先にエクスポートしてください。",
  "import.yes": "内容を置き換える",
  "found.good": "このスナップショットはインポートできます。",
  "found.bad": "このスナップショットはインポートできません。",
  "found.changes": "インポートによる変更",
  "found.kind": "種類",
  "found.added": "追加",
  "found.replaced": "変更",
  "found.removed": "削除",
  "found.unchanged": "同一",
  "found.documents": "ドキュメント",
  "found.files": "ファイル",
  "found.collections": "ボックス・コレクション",
  "found.kept": "このセルから作られたスナップショットです。ID はそのまま使われます。",
  "found.new": "別のセルから作られたスナップショットです。ID は新しく割り当てられます。",
  "found.repaired": "修復される壊れたリンク：{count}",
  "found.left": "取り込まれない項目：{count}",
  "found.faults": "問題：{count} 件",
  "found.moreFaults": "ほか {count} 件",
  "fault.code": "エラーコード {code}",
  "fault.said": "サービスからのメッセージ：{words}",
  "fault.unreachable": "サービスに接続できません。ネットワークを確認してください。",
  "fault.late": "サービスから時間内に応答がありませんでした。",
  "fault.page": "処理を続けられません：{words}",
  "fault.saving": "ファイルを保存できませんでした：{words}",
  "fault.copying": "ブラウザーによりコピーが許可されませんでした。",
  "fault.401": "このトークンは使えません。誤っているか、有効期限が切れています。",
  "fault.403": "トークンは有効ですが、権限が足りません。このセルの「root」権限が必要です。",
  "fault.404": "見つかりません（すでに削除された可能性があります）。",
  "fault.409": "現在この操作はできません。",
  "fault.4xx": "この要求は受け付けられませんでした。",
  "fault.5xx": "サービスで問題が発生しました。",
  "fault.503": "現在サービスを利用できません。しばらくしてからもう一度お試しください。",
  "fault.PR401-AU-0002": "トークンの有効期限が切れました。新しいトークンを取得してください。",
  "fault.PR401-AU-0007": "これはリフレッシュトークンです。アクセストークンが必要です。",
  "fault.PR404-DV-0003": "このセルは存在しません。",
  "fault.PR400-MC-0001": "スナップショットとして必要な内容が欠けています。",
  "fault.PR400-MC-0003": "対応していないバージョンのスナップショットです。",
  "fault.PR400-MC-0004": "zip ファイルではありません。",
  "fault.PR400-EX-0001": "スナップショットが壊れているか、エクスポートで作られたものではありません。",
  "fault.PR409-CM-0002": "このセルでは別のエクスポートかインポートが実行中です。終わるまでお待ちください。",
  "fault.PR409-DV-0002": "同じ名前のスナップショットがあります。別の名前を指定してください。",
  "fault.PR409-EX-0001": "中止されました。",
  "fault.PR409-EX-0002": "すでに終了しています。",
  "fault.PR413-EX-0001": "ファイルがサービスの上限を超えています。",
  "fault.PR500-CM-0002": "セル内のファイルの内容を読み取れませんでした。",
  "fault.PR500-DV-0001": "セル内のファイルの内容に不整合があります。",
  "fault.PR500-DV-0002": "セル内のファイルまたはボックスの情報が壊れています。",
  "fault.PR500-SV-0002": "データベースがセルのデータを処理できませんでした。",
  "fault.PR503-EX-0001": "何度も中断されたため、処理を打ち切りました。もう一度お試しください。",
  "fault.PR503-EX-0002": "時間内に終わりませんでした。",
  "fault.PR503-SV-0005": "サービスのディスクの空きがほとんどありません。",
  "fault.PR507-EX-0001": "このセルのスナップショットが容量の上限に達しています。いくつか削除してください。",
};

const TABLES = { en: ENGLISH, ja: JAPANESE };

let table = ENGLISH;
let language = "en";
/** The language as the reader's browser has it, with a region: dates look different in each. */
let locale = "en";

/** The language in use: `en` or `ja`. */
export const currentLanguage = () => language;

/** Japanese for those whose browser speaks it, English for all others. */
export const preferredLanguage = () => (navigator.language.toLowerCase().startsWith("ja") ? "ja" : "en");

/** Takes a language, and puts its texts wherever an element of the page names one. */
export function useLanguage(name) {
  language = Object.hasOwn(TABLES, name) ? name : "en";
  locale = navigator.languages.find((known) => known.toLowerCase().startsWith(language)) ?? language;
  table = TABLES[language];
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
}

/** Tells whether there is a text of this name. */
export const hasText = (key) => Object.hasOwn(table, key);

/** A text; `{name}` in it is replaced by the value of that name. */
export function text(key, values = {}) {
  const words = hasText(key) ? table[key] : key;
  return words.replace(/\{(\w+)\}/g, (whole, name) => (Object.hasOwn(values, name) ? values[name] : whole));
}

export const number = (value) => new Intl.NumberFormat(locale).format(value);
export const percent = (value) => new Intl.NumberFormat(locale, { style: "percent" }).format(value / 100);
export const date = (value) => new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" }).format(value);

const UNITS = ["KiB", "MiB", "GiB", "TiB"];

/** A number of bytes, in the unit that suits it. */
export function bytes(value) {
  let [size, unit] = [value, language === "ja" ? "バイト" : value === 1 ? "byte" : "bytes"];
  for (const larger of UNITS) {
    if (size < 1024) break;
    [size, unit] = [size / 1024, larger];
  }
  const digits = size < 10 && value >= 1024 ? 1 : 0;
  // Held together by a space at which no line ends.
  return `${new Intl.NumberFormat(locale, { maximumFractionDigits: digits }).format(size)}\u00a0${unit}`;
}

/** A length of time: its two largest units. */
export function duration(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  const parts = [["hour", Math.floor(whole / 3600)], ["minute", Math.floor(whole / 60) % 60], ["second", whole % 60]];
  const from = parts.findIndex(([, value]) => value > 0);
  const said = parts.slice(from, from + 2).filter(([, value]) => value > 0);
  return said
    .map(([unit, value]) => new Intl.NumberFormat(locale, { style: "unit", unit, unitDisplay: "short" }).format(value))
    .join(" ");
}

/** What to tell of an error: the plain words for its code or kind. */
export function plainWords({ status, code }) {
  const kind = status >= 500 ? "5xx" : "4xx";
  const known = [code, status, status ? kind : "5xx"].map((name) => `fault.${name}`).find(hasText);
  return text(known);
}
