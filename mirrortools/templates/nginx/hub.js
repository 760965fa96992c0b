// What files alone cannot answer: the two requests that carry a body, the list of repositories, pages of histories, LFS
// pointers, and who may read what is private. Written for njs 0.7.9: no spread, no destructuring. nginx sets $hub_public
// for lfsBatch and list, $hub_repository and $hub_commit for pathsInfo and commits; $hub_private and $hub_public_root
// where there is anything private.

import crypto from 'crypto';
import fs from 'fs';
import querystring from 'querystring';

const OID = /^[0-9a-f]{64}$/;
const COMMIT = /^[0-9a-f]{40}$/;
const MOST_OBJECTS = 10000;
const LFS_TYPE = 'application/vnd.git-lfs+json';
// The name under which mirrortools.revision writes a folder's listing into that folder.
const LISTING = '.git';
const MOST_LISTED = 500;
const COMMITS_A_PAGE = 50;
const MOST_COMMITS_A_PAGE = 1000;
// What a list of repositories may be asked for; `full` and its like change what is told, which is always the same here.
const SELECTORS = ['search', 'author', 'limit', 'cursor', 'full', 'cardData', 'config', 'expand'];

// POST {repository}/info/lfs/objects/batch, see git-lfs's docs/api/batch.md.
function lfsBatch(r) {
    const base = baseUrl(r) + '/blobs/sha256/';
    const blobs = r.variables.hub_public + '/blobs/sha256/';
    answerBatch(r, () => oid => {
        const place = oid.slice(0, 2) + '/' + oid.slice(2, 4) + '/' + oid;
        return { file: blobs + place, download: { href: base + place } };
    });
}

// The same of a private repository, which has no blobs by their digest alone: those of its own files are told, and are
// fetched by their names there, as who asks for them now.
function lfsBatchOfOne(r) {
    const repository = r.variables.hub_repository;
    const base = baseUrl(r) + '/' + (r.variables.hub_prefix || '') + r.variables.hub_repo + '/resolve/';
    const header = { Authorization: r.headersIn['Authorization'] };
    answerBatch(r, asked => {
        const files = filesOf(repository, asked);
        return oid => files[oid] && {
            file: repository + '/commits/' + files[oid],
            download: { href: base + files[oid].split('/').map(encodeURIComponent).join('/'), header: header },
        };
    });
}

// Answer a batch; `finder` makes of all objects that are asked for what gives the file and the download of one.
function answerBatch(r, finder) {
    if (r.method !== 'POST') {
        return answer(r, 405, LFS_TYPE, { message: 'POST a batch request here' });
    }
    const request = parsed(r.requestText);
    const problem = batchProblem(request);
    if (problem) {
        return answer(r, problem.status, LFS_TYPE, { message: problem.message });
    }
    const find = finder(request.objects);
    const objects = request.objects.map(object => batchObject(object, find));
    answer(r, 200, LFS_TYPE, { transfer: 'basic', hash_algo: 'sha256', objects: objects });
}

// Digest → commit/path of those that are asked for, in the revisions that refs name, then in the others.
function filesOf(repository, asked) {
    const found = {};
    const left = {};
    asked.filter(each => each && OID.test(each.oid)).forEach(each => { left[each.oid] = true; });
    const commits = commitsOf(repository + '/meta');
    for (let i = 0; i < commits.length && Object.keys(left).length; i++) {
        text(repository + '/meta/' + commits[i] + '/SHA256SUMS').split('\n').forEach(line => {
            const oid = line.slice(0, 64);
            if (left[oid]) {
                found[oid] = commits[i] + '/' + line.slice(66);
                delete left[oid];
            }
        });
    }
    return found;
}

function commitsOf(meta) {
    const refs = document(meta + '/refs.json') || { refs: {} };
    const commits = Object.keys(refs.refs).map(name => refs.refs[name]);
    const all = folders(meta).filter(name => COMMIT.test(name) && commits.indexOf(name) < 0);
    return commits.concat(all);
}

function batchProblem(request) {
    if (!request || !Array.isArray(request.objects)) {
        return { status: 422, message: 'this is not a batch request' };
    }
    if (request.operation !== 'download') {
        return { status: 403, message: 'this mirror is read-only; push to the source that it mirrors' };
    }
    if (request.hash_algo && request.hash_algo !== 'sha256') {
        return { status: 409, message: 'objects here are named by sha256' };
    }
    if (Array.isArray(request.transfers) && request.transfers.length && request.transfers.indexOf('basic') < 0) {
        return { status: 422, message: 'this mirror knows the basic transfer alone' };
    }
    if (request.objects.length > MOST_OBJECTS) {
        return { status: 413, message: 'too many objects; ask for at most ' + MOST_OBJECTS };
    }
    return null;
}

// The answer for one object: exactly the one that was asked for.
function batchObject(asked, find) {
    const oid = asked && typeof asked.oid === 'string' ? asked.oid : '';
    const object = { oid: oid, size: asked && asked.size ? asked.size : 0 };
    if (!OID.test(oid)) {
        object.error = { code: 422, message: 'not a sha256' };
        return object;
    }
    const known = find(oid);
    const size = known ? fileSize(known.file) : null;
    if (size === null) {
        object.error = { code: 404, message: 'not on this mirror' };
    } else if (size !== object.size) {
        object.error = { code: 422, message: 'this object has ' + size + ' bytes' };
    } else {
        object.authenticated = true;
        object.actions = { download: known.download };
    }
    return object;
}

// POST /api/{kind}/{repository}/paths-info/{revision}: the listed entries of some paths; others are left out.
function pathsInfo(r) {
    if (r.method !== 'POST') {
        return answer(r, 405, 'application/json', { error: 'POST the paths here' });
    }
    const commit = r.variables.hub_commit;
    if (!commit) {
        return r.return(404);
    }
    const paths = askedPaths(r);
    if (!paths) {
        return answer(r, 400, 'application/json', { error: 'no paths in this request' });
    }
    const meta = r.variables.hub_repository + '/meta/' + commit + '/';
    answer(r, 200, 'application/json', foundEntries(meta, paths));
}

// JSON, or the form that the Hub's own client sends.
function askedPaths(r) {
    const type = r.headersIn['Content-Type'] || '';
    const body = r.requestText || '';
    const json = type.indexOf('application/json') === 0;
    const request = json ? parsed(body) : querystring.parse(body, '&', '=', { maxKeys: 0 });
    if (!request || request.paths === undefined) {
        return null;
    }
    const paths = Array.isArray(request.paths) ? request.paths : [request.paths];
    return paths.every(path => typeof path === 'string') ? paths : null;
}

function foundEntries(meta, paths) {
    const listings = {};
    const found = [];
    paths.filter(isInside).forEach(path => {
        const folder = path.slice(0, Math.max(path.lastIndexOf('/'), 0));
        const key = '/' + folder;
        if (!listings[key]) {
            listings[key] = byPath(meta, folder);
        }
        const entry = listings[key]['/' + path];
        if (entry) {
            found.push(entry);
        }
    });
    return found;
}

// The entries of a folder, of all pages of its listing.
function byPath(meta, folder) {
    const index = {};
    let page = 'flat';
    let entries = document(meta + page + '/' + folder + '/' + LISTING);
    while (entries) {
        entries.forEach(entry => { index['/' + entry.path] = entry; });
        page += page === 'flat' ? '-n' : 'n';
        entries = document(meta + page + '/' + folder + '/' + LISTING);
    }
    return index;
}

// GET /api/{kind}: the repositories of this mirror by name, those that `search`, `author` and `cursor` leave, each with
// what its info tells but for the files; to a reader also those of the private ones that are that user's to read. What
// else a client may want to select by is not known here, so it is refused.
function list(r) {
    if (r.method !== 'GET' && r.method !== 'HEAD') {
        return answer(r, 403, 'application/json', { error: 'This mirror is read-only' });
    }
    const asked = r.args;
    const other = Object.keys(asked).filter(name => asked[name] !== '' && SELECTORS.indexOf(name) < 0);
    if (other.length) {
        return answer(r, 400, 'application/json', { error: 'This mirror cannot select or sort by ' + other.join(', ') });
    }
    const limit = Math.min(Number(asked.limit) > 0 ? Math.floor(Number(asked.limit)) : MOST_LISTED, MOST_LISTED);
    const search = first(asked.search).toLowerCase();
    const kind = '/' + r.variables.hub_api;
    const own = privateNames(r, first(asked.author));
    const names = repositoryNames(r.variables.hub_public + kind, first(asked.author)).concat(own)
        .filter(name => name > first(asked.cursor) && name.toLowerCase().indexOf(search) >= 0)
        .sort();
    const found = [];
    let last = '';
    for (let i = 0; i < names.length && found.length < limit; i++) {
        const root = own.indexOf(names[i]) < 0 ? r.variables.hub_public : r.variables.hub_private;
        const brief = repositoryBrief(root + kind, names[i]);
        if (brief) {
            found.push(brief);
            last = names[i];
        }
    }
    if (found.length === limit && last !== names[names.length - 1]) {
        const query = { search: first(asked.search), author: first(asked.author), limit: limit, cursor: last };
        const next = baseUrl(r) + '/api/' + r.variables.hub_api + '?' + querystring.stringify(query);
        r.headersOut['Link'] = '<' + next + '>; rel="next"';
    }
    answer(r, 200, 'application/json', found);
}

function first(value) {
    return String(Array.isArray(value) ? value[0] : value || '');
}

// The private repositories of a kind that the user whom the token names may read; nobody else is told of any.
function privateNames(r, author) {
    if (!r.variables.hub_private) {
        return [];
    }
    r.headersOut['Vary'] = 'Authorization';
    const user = r.variables.hub_reader;
    if (!user) {
        return [];
    }
    r.headersOut['Cache-Control'] = 'private, no-cache';
    const known = document(r.variables.hub_private + '/.access/users/' + user + '.json');
    const start = r.variables.hub_api + '/';
    return (known ? known.repositories : [])
        .filter(path => path.indexOf(start + (author && author + '/')) === 0)
        .map(path => path.slice(start.length));
}

// `name` and `org/name`; only those of `author` when one is given.
function repositoryNames(kind, author) {
    if (author) {
        return isInside(author) ? namesBelow(kind, author) : [];
    }
    const names = [];
    folders(kind).forEach(name => {
        if (isRepository(kind + '/' + name)) {
            names.push(name);
        } else {
            namesBelow(kind, name).forEach(each => { names.push(each); });
        }
    });
    return names;
}

function namesBelow(kind, owner) {
    return isRepository(kind + '/' + owner) ? [] : folders(kind + '/' + owner).map(name => owner + '/' + name);
}

function folders(path) {
    try {
        return fs.readdirSync(path).filter(name => !/\.git$/.test(name));
    } catch (error) {
        return [];
    }
}

function isRepository(path) {
    return fileSize(path + '/meta/refs.json') !== null;
}

// What is told of a repository: of its main branch, or of its first one.
function repositoryBrief(kind, name) {
    const meta = kind + '/' + name + '/meta/';
    const refs = document(meta + 'refs.json');
    if (!refs || !refs.refs) {
        return null;
    }
    const commit = refs.refs['refs/heads/main'] || refs.refs[Object.keys(refs.refs)[0]];
    const brief = document(meta + commit + '/brief.json') || { id: name, sha: commit, private: false, tags: [] };
    brief.downloads = 0;
    brief.likes = 0;
    return brief;
}

// GET /api/{kind}/{repository}/commits/{revision}: a page of its history, numbered from 0 as the Hub does it.
function commits(r) {
    if (r.method !== 'GET' && r.method !== 'HEAD') {
        return answer(r, 403, 'application/json', { error: 'This mirror is read-only' });
    }
    if (!r.variables.hub_commit) {
        return r.return(404);
    }
    r.headersOut['X-Repo-Commit'] = r.variables.hub_commit;
    const all = document(r.variables.hub_repository + '/meta/' + r.variables.hub_commit + '/commits.json');
    if (!all) {
        const error = 'This mirror tells the history of this revision by git clone alone';
        r.headersOut['X-Error-Message'] = error;
        return answer(r, 404, 'application/json', { error: error });
    }
    const limit = Math.min(whole(r.args.limit) || COMMITS_A_PAGE, MOST_COMMITS_A_PAGE);
    const page = whole(r.args.p);
    if (all.length > (page + 1) * limit) {
        const next = baseUrl(r) + r.variables.hub_asked + '?' + querystring.stringify({ limit: limit, p: page + 1 });
        r.headersOut['Link'] = '<' + next + '>; rel="next"';
    }
    r.headersOut['X-Total-Count'] = all.length;
    answer(r, 200, 'application/json', all.slice(page * limit, (page + 1) * limit));
}

// The number that an argument is, 0 when it is none.
function whole(argument) {
    return Math.max(Math.floor(Number(first(argument))) || 0, 0);
}

// HEAD of a file that the client would refuse if it were told its size: all but that.
function huge(r) {
    r.status = 200;
    r.headersOut['X-Repo-Commit'] = r.variables.hub_commit;
    r.headersOut['ETag'] = r.headersOut['X-Linked-Etag'] = r.variables.hub_etag;
    r.headersOut['Accept-Ranges'] = 'bytes';
    r.sendHeader();
    r.finish();
}

// GET {repository}/raw/{revision}/{path} of an LFS file: its pointer, see git-lfs's docs/spec.md.
function pointer(r) {
    if (r.method !== 'GET' && r.method !== 'HEAD') {
        return answer(r, 403, 'application/json', { error: 'This mirror is read-only' });
    }
    const oid = r.variables.hub_etag.slice(1, -1);
    const size = fileSize(r.variables.hub_file_of_pointer);
    r.headersOut['Content-Type'] = 'text/plain';
    r.headersOut['X-Repo-Commit'] = r.variables.hub_commit;
    r.return(200, 'version https://git-lfs.github.com/spec/v1\noid sha256:' + oid + '\nsize ' + size + '\n');
}

// The user whom a request's token names: Bearer as the Hub's clients send it, or the password of Basic, as git does.
// A token is not compared, its hash is looked up: a file with that name says whose it is, see mirrortools.readers.
function reader(r) {
    const token = sentToken(r.headersIn['Authorization'] || '');
    if (!token) {
        return '';
    }
    const hash = crypto.createHash('sha256').update(token).digest('hex');
    const known = document(r.variables.hub_private + '/.access/tokens/' + hash);
    return known && !(known.expires_at && known.expires_at * 1000 <= Date.now()) ? known.user : '';
}

function sentToken(authorization) {
    const words = authorization.split(' ');
    const scheme = words[0].toLowerCase();
    if (words.length !== 2 || (scheme !== 'bearer' && scheme !== 'basic')) {
        return '';
    }
    if (scheme === 'bearer') {
        return words[1];
    }
    const pair = Buffer.from(words[1], 'base64').toString();
    return pair.slice(pair.indexOf(':') + 1);
}

// What whoever asks may do with the repository that is not public: 200; 401 for who is nobody; 404, as of one that is not
// there, for who is no reader, or 403 where its job tells such users that it is there.
function verdict(r) {
    const user = r.variables.hub_reader;
    if (!user) {
        return '401';
    }
    const path = r.variables.hub_repository.slice(r.variables.hub_public_root.length + 1);
    const list = document(r.variables.hub_private + '/.access/repositories/' + encodeURIComponent(path));
    if (list && list.readers.indexOf(user) >= 0) {
        return '200';
    }
    return list && list.gated ? '403' : '404';
}

// The answer to who may not read, with the codes by which the Hub's clients know what to tell.
function refused(r) {
    const status = Number(r.variables.hub_verdict);
    const gated = status === 403;
    const message = gated ? 'Access to this repository is restricted, and you are not on its list'
        : 'Repository not found on this mirror';
    if (status === 401) {
        r.headersOut['WWW-Authenticate'] = 'Basic realm="mirror", charset="UTF-8"';
    }
    r.headersOut['X-Error-Code'] = gated ? 'GatedRepo' : 'RepoNotFound';
    r.headersOut['X-Error-Message'] = message;
    r.headersOut['Cache-Control'] = 'private, no-cache';
    answer(r, status, 'application/json', { error: message });
}

// GET /api/whoami-v2: whom the token names. `hf auth login` asks for it.
function whoami(r) {
    const user = r.variables.hub_reader;
    if (!user) {
        const message = 'Invalid credentials in Authorization header';
        r.headersOut['X-Error-Message'] = message;
        return answer(r, 401, 'application/json', { error: message });
    }
    const token = { displayName: user, role: 'read' };
    const account = { type: 'user', id: user, name: user, fullname: user, email: null, orgs: [] };
    account.auth = { type: 'access_token', accessToken: token };
    answer(r, 200, 'application/json', account);
}

function text(file) {
    try {
        return fs.readFileSync(file, 'utf8');
    } catch (error) {
        return '';
    }
}

function document(file) {
    return parsed(text(file));
}

function isInside(path) {
    return path.split('/').every(segment => segment !== '' && segment !== '.' && segment !== '..')
        && path.indexOf('\0') < 0;
}

function fileSize(path) {
    try {
        return fs.statSync(path).size;
    } catch (error) {
        return null;
    }
}

function baseUrl(r) {
    const scheme = r.headersIn['X-Forwarded-Proto'] === 'https' ? 'https' : r.variables.scheme;
    return scheme + '://' + (r.headersIn['Host'] || r.variables.host);
}

function parsed(json) {
    try {
        return JSON.parse(json);
    } catch (error) {
        return null;
    }
}

function answer(r, status, type, document) {
    r.headersOut['Content-Type'] = type;
    r.return(status, JSON.stringify(document));
}

export default {
    commits, huge, lfsBatch, lfsBatchOfOne, list, pathsInfo, pointer, reader, refused, verdict, whoami,
};
