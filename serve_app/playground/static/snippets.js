// The same request as code to copy. Pure. Pictures are read from files beside the code, and the
// key from the environment.

export const LANGUAGES = { curl, python, javascript };
export const FILES = {
    init_image: "picture.png",
    mask_image: "mask.png",
    control_image: "picture.png",
    ip_adapter_image: "reference.png",
};

// url: of the call; fetchUrl: of fetches, without the id; pictures: fields filled from FILES.
function curl({ url, fields, pictures, needsKey }) {
    const json = JSON.stringify(fields, null, 2).replaceAll("'", String.raw`'\''`);
    const lines = pictures.map((name) => `  "${name}": "'"$(base64 -w0 ${FILES[name]})"'"`);
    const body = lines.length === 0 ? json : `${json.slice(0, -2)},\n${lines.join(",\n")}\n}`;
    const key = needsKey ? ` \\\n  -H "Authorization: Bearer $DREAMSERVE_KEY"` : "";
    // From a file: a picture in an argument would be too long for the shell.
    return `curl -s '${url}'${key} \\
  -H 'Content-Type: application/json' --data-binary @- <<< '${body}'
`;
}

function python({ url, fetchUrl, fields, pictures, needsKey }) {
    const reads = pictures.map(
        (name) =>
            `body["${name}"] = base64.b64encode(pathlib.Path("${FILES[name]}").read_bytes()).decode()\n`,
    );
    const key = needsKey
        ? `headers["Authorization"] = f"Bearer {os.environ['DREAMSERVE_KEY']}"\n`
        : "";
    const imports = [
        pictures.length > 0 && "base64",
        "json",
        needsKey && "os",
        pictures.length > 0 && "pathlib",
    ]
        .concat("time", "urllib.request")
        .filter(Boolean);
    return `${imports.map((name) => `import ${name}\n`).join("")}
body = ${pythonValue(fields)}
${reads.join("")}headers = {"Content-Type": "application/json"}
${key}

def post(url, fields):
    call = urllib.request.Request(url, json.dumps(fields).encode(), headers)
    return json.load(urllib.request.urlopen(call))


answer = post("${url}", body)
job = answer.get("id")
while answer["status"] == "processing":
    time.sleep(answer["eta"])
    answer = post(f"${fetchUrl}/{job}", {})
print(answer["output"] if answer["status"] == "success" else answer["message"])
`;
}

function javascript({ url, fetchUrl, fields, pictures, needsKey }) {
    const reads = pictures.map(
        (name) => `body.${name} = readFileSync("${FILES[name]}").toString("base64");\n`,
    );
    const key = needsKey ? "\n  Authorization: `Bearer ${process.env.DREAMSERVE_KEY}`," : "";
    return `${pictures.length > 0 ? 'import { readFileSync } from "node:fs";\n\n' : ""}const body = ${JSON.stringify(fields, null, 2)};
${reads.join("")}const headers = {
  "Content-Type": "application/json",${key}
};

async function post(url, fields) {
  const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify(fields) });
  return answer.json();
}

let answer = await post("${url}", body);
const job = answer.id;
while (answer.status === "processing") {
  await new Promise((wake) => setTimeout(wake, answer.eta * 1000));
  answer = await post(\`${fetchUrl}/\${job}\`, {});
}
console.log(answer.status === "success" ? answer.output : answer.message);
`;
}

function pythonValue(fields) {
    const lines = Object.entries(fields).map(
        ([name, value]) => `    "${name}": ${JSON.stringify(value)},\n`,
    );
    return `{\n${lines.join("")}}`;
}
