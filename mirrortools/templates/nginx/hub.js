// The two requests of the Hub's protocol that carry a body. Written for njs 0.7.9: no spread, no destructuring.
// nginx sets $hub_public, and for pathsInfo $hub_repository and $hub_commit.

import fs from 'fs';
import querystring from 'querystring';

const OID = /^[0-9a-f]{64}$/;
const MOST_OBJECTS = 10000;
const LFS_TYPE = 'application/vnd.git-lfs+json';
// The name under which mirrortools.revision writes a folder's listing into that folder.
const LISTING = '.git';

// POST {repository}/info/lfs/objects/batch, see git-lfs's docs/api/batch.md.
function lfsBatch(r) {
    if (r.method !== 'POST') {
        return answer(r, 405, LFS_TYPE, { message: 'POST a batch request here' });
    }
    const request = parsed(r.requestText);
    const problem = batchProblem(request);
    if (problem) {
        return answer(r, problem.status, LFS_TYPE, { message: problem.message });
    }
    const base = baseUrl(r) + '/blobs/sha256/';
    const blobs = r.variables.hub_public + '/blobs/sha256/';
    const objects = request.objects.map(object => batchObject(object, base, blobs));
    answer(r, 200, LFS_TYPE, { transfer: 'basic', hash_algo: 'sha256', objects: objects });
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
function batchObject(asked, base, blobs) {
    const oid = asked && typeof asked.oid === 'string' ? asked.oid : '';
    const object = { oid: oid, size: asked && asked.size ? asked.size : 0 };
    if (!OID.test(oid)) {
        object.error = { code: 422, message: 'not a sha256' };
        return object;
    }
    const place = oid.slice(0, 2) + '/' + oid.slice(2, 4) + '/' + oid;
    const size = fileSize(blobs + place);
    if (size === null) {
        object.error = { code: 404, message: 'not on this mirror' };
    } else if (size !== object.size) {
        object.error = { code: 422, message: 'this object has ' + size + ' bytes' };
    } else {
        object.authenticated = true;
        object.actions = { download: { href: base + place } };
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
    const flat = r.variables.hub_repository + '/meta/' + commit + '/flat/';
    answer(r, 200, 'application/json', foundEntries(flat, paths));
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

function foundEntries(flat, paths) {
    const listings = {};
    const found = [];
    paths.filter(isInside).forEach(path => {
        const folder = path.slice(0, Math.max(path.lastIndexOf('/'), 0));
        const key = '/' + folder;
        if (!listings[key]) {
            listings[key] = byPath(flat + folder + '/' + LISTING);
        }
        const entry = listings[key]['/' + path];
        if (entry) {
            found.push(entry);
        }
    });
    return found;
}

function byPath(file) {
    const index = {};
    listing(file).forEach(entry => { index['/' + entry.path] = entry; });
    return index;
}

function listing(file) {
    try {
        return JSON.parse(fs.readFileSync(file, 'utf8'));
    } catch (error) {
        return [];
    }
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

function parsed(text) {
    try {
        return JSON.parse(text);
    } catch (error) {
        return null;
    }
}

function answer(r, status, type, document) {
    r.headersOut['Content-Type'] = type;
    r.return(status, JSON.stringify(document));
}

export default { lfsBatch, pathsInfo };
